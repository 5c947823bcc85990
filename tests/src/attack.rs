//! Clients that exhaust a server: clients without a credential that misuse connections, and a tenant that sends requests
//! without a pause. They connect to loopback addresses only, their number is fixed, and they end when they are dropped.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Result;
use hyper::Request;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::client::{Connection, bearer};

/// What each client does, on one connection after another.
#[derive(Debug, Clone)]
pub enum Attack {
    /// Connect and send nothing.
    Silence,
    /// Send half of a header, a byte at a time.
    HalfRequests,
    /// Send a body, a byte at a time.
    SlowBodies,
    /// Send many requests at once, and read no response.
    NoReading,
    /// The same, but read a byte of the responses from time to time.
    SlowReading,
    /// Sign in with a wrong AuthKey, repeatedly.
    SignIns,
    /// As a tenant, exchange an AuthKey and log out, repeatedly.
    Logouts { auth_key_id: String, auth_key: String },
}

/// The running clients.
#[derive(Debug)]
pub struct Attackers {
    _clients: JoinSet<()>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    held: AtomicUsize,
    made: AtomicUsize,
    requests: AtomicUsize,
}

impl Attack {
    /// Starts a number of clients, distributed over a number of addresses.
    pub fn start(&self, target: SocketAddr, clients: usize, addresses: usize) -> Attackers {
        assert!(target.ip().is_loopback(), "an attack on {target}");
        let counts = Arc::<Counts>::default();
        let mut tasks = JoinSet::new();
        for number in 0..clients {
            let (attack, counts) = (self.clone(), Arc::clone(&counts));
            let of = u16::try_from(number % addresses).expect("few addresses").to_be_bytes();
            let from = Ipv4Addr::new(127, 200, of[0], of[1].max(1));
            tasks.spawn(async move {
                loop {
                    if let Ok(stream) = connect(target, from).await {
                        counts.made.fetch_add(1, Ordering::Relaxed);
                        counts.held.fetch_add(1, Ordering::Relaxed);
                        let _ = attack.run_client(stream, &counts).await;
                        counts.held.fetch_sub(1, Ordering::Relaxed);
                    }
                    sleep(Duration::from_millis(20)).await;
                }
            });
        }
        Attackers { _clients: tasks, counts }
    }

    /// Runs one client until the server ends the connection.
    async fn run_client(&self, mut stream: TcpStream, counts: &Counts) -> Result<()> {
        let many = "GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n".repeat(500);
        match self {
            Self::Silence => {
                stream.read_u8().await?;
            }
            Self::HalfRequests => {
                stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-slow: ").await?;
                loop {
                    stream.write_all(b"x").await?;
                    sleep(SLOW_INTERVAL).await;
                }
            }
            Self::SlowBodies => {
                let head = "POST /v1/auth HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9000\r\n\r\n{";
                stream.write_all(head.as_bytes()).await?;
                loop {
                    stream.write_all(b" ").await?;
                    sleep(SLOW_INTERVAL).await;
                }
            }
            Self::NoReading => loop {
                stream.write_all(many.as_bytes()).await?;
            },
            Self::SlowReading => loop {
                let _ = timeout(SLOW_INTERVAL, stream.write_all(many.as_bytes())).await.unwrap_or(Ok(()));
                stream.read_u8().await?;
            },
            Self::SignIns => {
                let mut connection = Connection::from_stream(stream, "attacked").await?;
                let body = json!({ "authKeyId": "keyId-nobody", "authKey": "secret-wrong" }).to_string();
                loop {
                    connection.send(Request::post("/v1/auth").body(body.clone())?).await?;
                    counts.requests.fetch_add(1, Ordering::Relaxed);
                }
            }
            Self::Logouts { auth_key_id, auth_key } => {
                let mut connection = Connection::from_stream(stream, "attacked").await?;
                let body = json!({ "authKeyId": auth_key_id, "authKey": auth_key }).to_string();
                loop {
                    let answer = connection.send(Request::post("/v1/auth").body(body.clone())?).await?;
                    counts.requests.fetch_add(1, Ordering::Relaxed);
                    let session = answer.json()?;
                    if let Some(token) = session["token"].as_str() {
                        let mut logout = bearer(token);
                        *logout.method_mut() = hyper::Method::POST;
                        *logout.uri_mut() = "/v1/auth/logout".parse()?;
                        connection.send(logout).await?;
                    }
                }
            }
        }
        Ok(())
    }
}

impl Attackers {
    /// Returns the number of connections that the clients have open, as far as they know.
    pub fn open_connections(&self) -> usize {
        self.counts.held.load(Ordering::Relaxed)
    }

    /// Returns the number of connections so far.
    pub fn connections_made(&self) -> usize {
        self.counts.made.load(Ordering::Relaxed)
    }

    /// Returns the number of answered requests so far.
    pub fn requests(&self) -> usize {
        self.counts.requests.load(Ordering::Relaxed)
    }
}

async fn connect(target: SocketAddr, from: Ipv4Addr) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    // A small receive buffer keeps responses in the server instead of the client's kernel.
    socket.set_recv_buffer_size(4096)?;
    socket.set_send_buffer_size(4096)?;
    socket.bind((from, 0).into())?;
    Ok(timeout(CONNECT_TIMEOUT, socket.connect(target)).await??)
}

const SLOW_INTERVAL: Duration = Duration::from_millis(900);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
