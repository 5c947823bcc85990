use anyhow::Result;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A minimal server that answers every request without a body with 200. It is the upstream and the service of
/// `ext_authz`, so that their cost does not hide what is measured.
#[derive(Debug)]
pub(crate) struct Plain(JoinHandle<()>);

impl Plain {
    pub(crate) async fn start(address: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(address).await?;
        Ok(Self(tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // Ends when the client closes the connection.
                tokio::spawn(serve(stream));
            }
        })))
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn serve(mut stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut head = Vec::with_capacity(16 * 1024);
    loop {
        while !head.ends_with(END) {
            if stream.read_buf(&mut head).await? == 0 {
                return Ok(());
            }
        }
        head.clear();
        stream.write_all(ANSWER).await?;
    }
}

/// Returns true if the bytes end with the end of a header. A connection has one request at a time.
const END: &[u8] = b"\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
