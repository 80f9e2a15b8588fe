//! A TCP proxy in front of a server, which can stall, and reset what is connected.

use std::net::TcpListener as Listener;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, tcp};
use tokio::runtime::Handle;
use tokio::sync::watch;

/// What is taken from one side before it is given to the other.
const BUFFER: usize = 64 << 10;

/// What every connection has to heed.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    stalled: bool,
    /// Connections of earlier ages are reset.
    age: u64,
}

pub struct Proxy {
    port: u16,
    state: watch::Sender<State>,
}

impl Proxy {
    /// Forwards a free port to another one, on 127.0.0.1, for as long as the runtime lives.
    pub fn start(runtime: &Handle, to: u16) -> Self {
        let listener = Listener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (state, watched) = watch::channel(State::default());
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, to, watched.clone()));
            }
        });
        Self { port, state }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// From now on nothing passes, in either direction, until [`Self::go_on`].
    pub fn stall(&self) {
        self.state.send_modify(|state| state.stalled = true);
    }

    pub fn go_on(&self) {
        self.state.send_modify(|state| state.stalled = false);
    }

    /// Resets every connection that there is now.
    pub fn reset(&self) {
        self.state.send_modify(|state| state.age += 1);
    }
}

async fn serve(client: TcpStream, to: u16, mut state: watch::Receiver<State>) {
    let age = state.borrow_and_update().age;
    let reset = {
        let mut state = state.clone();
        async move {
            let _ = state.wait_for(|state| state.age != age).await;
        }
    };
    let Ok(server) = TcpStream::connect(("127.0.0.1", to)).await else {
        let _ = client.set_zero_linger();
        return;
    };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let was_reset = tokio::select! {
        () = reset => true,
        () = pass(&mut from_client, &mut to_server, state.clone()) => false,
        () = pass(&mut from_server, &mut to_client, state) => false,
    };
    // Where one side has ended the other one is ended too: it would wait for what never comes.
    if was_reset {
        for side in [from_client.as_ref(), from_server.as_ref()] {
            let _ = side.set_zero_linger();
        }
    }
}

async fn pass(from: &mut tcp::OwnedReadHalf, to: &mut tcp::OwnedWriteHalf, mut state: watch::Receiver<State>) {
    let mut buffer = vec![0; BUFFER];
    loop {
        let Ok(length @ 1..) = from.read(&mut buffer).await else { return };
        if state.wait_for(|state| !state.stalled).await.is_err() {
            return;
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
