//! What any async runtime needs of a worker: its listener, and the moment when it is told to go.

use std::io;

use proteus_cluster::{Api, Config, Worker};
use tokio::io::unix::AsyncFd;
use tokio::net::TcpListener;

/// Four workers on 127.0.0.1:8080, the control API on 127.0.0.1:8111.
pub fn config() -> proteus_cluster::Result<Config> {
    Config::builder().workers(4).listen("http", "127.0.0.1:8080").api(Api::new("127.0.0.1:8111")).build()
}

/// The listener `http`, for tokio, which takes it in non-blocking mode only.
pub fn listener(worker: &Worker) -> proteus_cluster::Result<io::Result<TcpListener>> {
    let listener = worker.listener("http")?;
    Ok(listener.set_nonblocking(true).and_then(|()| TcpListener::from_std(listener)))
}

/// Returns when this worker is told to disconnect.
pub async fn disconnected(worker: Worker) {
    match AsyncFd::new(worker.disconnect_fd()) {
        Ok(bell) => drop(bell.readable().await),
        Err(error) => eprintln!("disconnect_fd: {error}"),
    }
}
