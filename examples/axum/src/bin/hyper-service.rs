//! The same with hyper alone: accept until told to go, then let every connection finish its request.
//!
//! `cargo run --manifest-path examples/axum/Cargo.toml --bin hyper-service`

use std::convert::Infallible;

use axum_service::{Accepting, config};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulShutdown;
use proteus_cluster::{Exit, Worker};

fn main() -> proteus_cluster::Result<Exit> {
    proteus_cluster::logger::init();
    proteus_cluster::run(config()?, |worker| tokio::runtime::Runtime::new()?.block_on(serve(worker)))
}

async fn serve(worker: Worker) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut incoming = Accepting::new(&worker)?;
    worker.ready()?;
    let connections = GracefulShutdown::new();
    while let Some((stream, _)) = incoming.next().await {
        let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer));
        let served = connections.watch(served);
        tokio::spawn(async move {
            if let Err(error) = served.await {
                eprintln!("{error}");
            }
        });
    }
    incoming.over().await;
    connections.shutdown().await;
    Ok(())
}

async fn answer(_: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::from(format!("pid={}\n", std::process::id()))))
}
