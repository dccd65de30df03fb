//! A TCP path to a server, which can be cut, closed and held.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use anyhow::Context;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// An address that leads to another. Dropping it cuts everything.
pub struct Link {
    address: SocketAddr,
    switches: watch::Sender<Switches>,
    _tasks: JoinSet<()>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Switches {
    closed: bool,
    held: bool,
    cuts: u64,
}

impl Link {
    /// A path to `target`, on an address of its own that pods reach too.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn to(target: SocketAddr) -> anyhow::Result<Self> {
        // Nobody else is on these addresses, so that a closed port is not taken by another program.
        static NEXT: AtomicU8 = AtomicU8::new(2);
        let host = Ipv4Addr::new(10, 244, 0, NEXT.fetch_add(1, Ordering::Relaxed));
        let address = SocketAddr::from((host, target.port()));
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address}"))?;
        let (switches, seen) = watch::channel(Switches::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, address, target, seen));
        Ok(Self {
            address,
            switches,
            _tasks: tasks,
        })
    }

    /// Where to connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Resets every open connection.
    pub fn cut(&self) {
        self.switches.send_modify(|switches| switches.cuts += 1);
    }

    /// Refuses new connections, or takes them again. Open ones stay.
    pub fn close(&self, closed: bool) {
        self.switches
            .send_modify(|switches| switches.closed = closed);
    }

    /// Resets open connections and refuses new ones: nobody is there.
    pub fn break_off(&self) {
        self.close(true);
        self.cut();
    }

    /// Passes nothing on, in either direction, or goes on. Connections stay open, as behind a firewall that drops.
    pub fn hold(&self, held: bool) {
        self.switches.send_modify(|switches| switches.held = held);
    }
}

async fn accept(
    listener: TcpListener,
    address: SocketAddr,
    target: SocketAddr,
    mut switches: watch::Receiver<Switches>,
) {
    let mut connections = JoinSet::new();
    let mut open = Some(listener);
    loop {
        while connections.try_join_next().is_some() {}
        let closed = switches.borrow_and_update().closed;
        if closed {
            open = None;
        } else if open.is_none() {
            open = TcpListener::bind(address).await.ok();
        }
        let Some(listener) = &open else {
            // Wanted open and not to be had: the last connection of the old listener may still be on its way out.
            let again = tokio::time::sleep(Duration::from_millis(20));
            tokio::select! {
                changed = switches.changed() => if changed.is_err() { return },
                () = again, if !closed => {}
            }
            continue;
        };
        tokio::select! {
            changed = switches.changed() => if changed.is_err() { return },
            Ok((client, _)) = listener.accept() => {
                connections.spawn(connection(client, target, switches.clone()));
            }
        }
    }
}

async fn connection(
    mut client: TcpStream,
    target: SocketAddr,
    mut switches: watch::Receiver<Switches>,
) {
    let cuts = switches.borrow_and_update().cuts;
    // Reset rather than closed, if it is given up half-way: a network that breaks says no goodbye.
    reset_on_close(&client, true);
    let mut cut = switches.clone();
    let passed = async {
        let mut server = TcpStream::connect(target).await?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        reset_on_close(&server, true);
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        tokio::try_join!(
            pass(from_client, to_server, switches.clone()),
            pass(from_server, to_client, switches.clone()),
        )?;
        reset_on_close(&server, false);
        io::Result::Ok(())
    };
    tokio::select! {
        outcome = passed => if outcome.is_ok() {
            reset_on_close(&client, false);
        },
        _ = cut.wait_for(|switches| switches.cuts != cuts) => {}
    }
}

fn reset_on_close(stream: &TcpStream, reset: bool) {
    let linger = reset.then_some(Duration::ZERO);
    SockRef::from(stream).set_linger(linger).ok();
}

async fn pass(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut switches: watch::Receiver<Switches>,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 << 10];
    loop {
        flows(&mut switches).await?;
        let count = from.read(&mut buffer).await?;
        // What came while it was being held has not passed yet.
        flows(&mut switches).await?;
        if count == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..count]).await?;
    }
}

async fn flows(switches: &mut watch::Receiver<Switches>) -> io::Result<()> {
    let flows = switches.wait_for(|switches| !switches.held).await;
    flows
        .map(|_| ())
        .map_err(|_| io::ErrorKind::BrokenPipe.into())
}
