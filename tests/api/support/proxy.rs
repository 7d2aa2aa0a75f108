//! A network that can be cut: it stops carrying bytes without closing anything, as when a host vanishes.

use std::{net::SocketAddr, sync::Arc};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

/// Carries connections to another address, until it is told not to.
pub struct Proxy {
    pub address: SocketAddr,
    network: Arc<watch::Sender<Network>>,
}

#[derive(Clone, Copy)]
struct Network {
    /// Whether anything is carried.
    up: bool,
    /// How often connections were lost for good. Those that are older stay silent for ever.
    losses: u32,
}

impl Proxy {
    pub async fn to(target: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let network = Arc::new(watch::channel(Network { up: true, losses: 0 }).0);
        let state = network.clone();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let state = state.subscribe();
                tokio::spawn(async move {
                    let far = TcpStream::connect(target).await.unwrap();
                    let born = state.borrow().losses;
                    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
                    tokio::spawn(carry(near_in, far_out, born, state.clone()));
                    tokio::spawn(carry(far_in, near_out, born, state));
                });
            }
        });
        Proxy { address, network }
    }

    /// Nothing is carried any more, not even on new connections.
    pub fn cut(&self) {
        self.network.send_modify(|network| network.up = false);
    }

    /// Everything is carried again, also what was sent in the meantime.
    pub fn mend(&self) {
        self.network.send_modify(|network| network.up = true);
    }

    /// The connections that there are fall silent for ever; new ones work.
    pub fn lose_connections(&self) {
        self.network.send_modify(|network| network.losses += 1);
    }
}

async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    born: u32,
    mut network: watch::Receiver<Network>,
) {
    let mut bytes = vec![0; 64 * 1024];
    loop {
        let read = from.read(&mut bytes).await.unwrap_or(0);
        // Whoever is lost waits here until the end of the test.
        let carries = |network: &Network| network.up && network.losses == born;
        if network.wait_for(carries).await.is_err()
            || read == 0
            || to.write_all(&bytes[..read]).await.is_err()
        {
            return;
        }
    }
}
