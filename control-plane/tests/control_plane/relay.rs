//! A TCP relay in front of a server, to break connections in the ways that networks do.

use std::net::SocketAddr;

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
};

/// A relay. Dropping it ends all connections, and new ones are refused.
pub(crate) struct Relay {
    address: SocketAddr,
    /// How often the connections were silenced.
    silences: watch::Sender<u32>,
    task: JoinHandle<()>,
}

impl Relay {
    /// Relays a free port to the server.
    pub(crate) async fn start(server_port: u16) -> Self {
        Self::at(SocketAddr::from(([127, 0, 0, 1], 0)), server_port).await
    }

    /// Relays an address to the server.
    pub(crate) async fn at(address: SocketAddr, server_port: u16) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let silences = watch::Sender::new(0);
        let silenced = silences.subscribe();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let mut silenced = silenced.clone();
                silenced.mark_unchanged();
                connections.spawn(relay(client, server_port, silenced));
            }
        });
        Self { address, silences, task }
    }

    /// Returns the address of the relay.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on the present connections stay open and transmit nothing.
    pub(crate) fn silence(&self) {
        self.silences.send_modify(|count| *count += 1);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn relay(mut client: TcpStream, server_port: u16, mut silenced: watch::Receiver<u32>) {
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", server_port)).await else { return };
    tokio::select! {
        _ = copy_bidirectional(&mut client, &mut server) => return,
        _ = silenced.changed() => {}
    }
    std::future::pending().await
}
