//! An axum service whose workers finish their requests before they go.
//!
//! By itself, master and workers in one: `cargo run --manifest-path examples/axum/Cargo.toml --bin axum-service`
//! As workers of the launcher: `proteus run -n 4 --listen http=127.0.0.1:8080 -- …/axum-service`

use std::time::Duration;

use axum::{Router, routing::get};
use axum_service::{Accepting, config};
use proteus_cluster::{Exit, Worker};

fn main() -> proteus_cluster::Result<Exit> {
    proteus_cluster::logger::init();
    // The runtime is started in the worker: the master has none.
    proteus_cluster::run(config()?, |worker| tokio::runtime::Runtime::new()?.block_on(serve(worker)))
}

async fn serve(worker: Worker) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let pid = || async { format!("pid={}\n", std::process::id()) };
    let slow = move || async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        pid().await
    };
    let app = Router::new().route("/", get(pid)).route("/slow", get(slow));
    let incoming = Accepting::new(&worker)?;
    worker.ready()?;
    let over = incoming.over();
    axum::serve(incoming, app).with_graceful_shutdown(over).await?;
    Ok(())
}
