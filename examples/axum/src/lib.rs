//! What an async runtime needs of a worker: its listener, and the moment when it is told to go.

use std::future;
use std::net::SocketAddr;
use std::time::Duration;

use proteus_cluster::{Api, Config, Worker};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;

/// For the connections accepted last to send their requests: hyper closes one that has sent nothing yet.
const LAST_REQUESTS: Duration = Duration::from_millis(250);
/// After a lack of descriptors, say: until the next try.
const PAUSE: Duration = Duration::from_millis(20);

/// Four workers on 127.0.0.1:8080, the control API on 127.0.0.1:8111.
pub fn config() -> proteus_cluster::Result<Config> {
    Config::builder().workers(4).listen("http", "127.0.0.1:8080").api(Api::new("127.0.0.1:8111")).build()
}

/// True once this worker is told to disconnect.
pub type Told = watch::Receiver<bool>;

/// Connections of the listener `http`, until this worker is told to go.
pub struct Accepting {
    listener: TcpListener,
    told: Told,
}

impl Accepting {
    pub fn new(worker: &Worker) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let listener = worker.listener("http")?;
        listener.set_nonblocking(true)?; // the only mode that tokio takes
        let (tell, told) = watch::channel(false);
        // The descriptor is that of a stream, which ends when it is time to go.
        let bell = std::os::unix::net::UnixStream::from(worker.disconnect_fd().try_clone_to_owned()?);
        bell.set_nonblocking(true)?;
        let bell = UnixStream::from_std(bell)?;
        tokio::spawn(async move {
            drop(bell.readable().await);
            tell.send_replace(true);
        });
        Ok(Accepting { listener: TcpListener::from_std(listener)?, told })
    }

    /// Resolves a moment after this worker was told to go: time to let the connections end.
    pub fn over(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut told = self.told.clone();
        async move {
            drop(told.wait_for(|told| *told).await);
            tokio::time::sleep(LAST_REQUESTS).await;
        }
    }

    /// The next connection, or none any more.
    pub async fn next(&mut self) -> Option<(TcpStream, SocketAddr)> {
        let Accepting { listener, told } = self;
        loop {
            let accepted = tokio::select! {
                () = async { drop(told.wait_for(|told| *told).await) } => return None,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok(accepted) => return Some(accepted),
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }
}

impl axum::serve::Listener for Accepting {
    type Io = TcpStream;
    type Addr = SocketAddr;

    /// axum asks until its graceful shutdown begins, which is a moment later.
    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        match self.next().await {
            Some(accepted) => accepted,
            None => future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}
