//! Raw sockets, which no plugin gets: every way to one is refused before anything is opened, and the operator is told (S129).

use std::sync::Arc;

use wasmtime::component::{HasData, Linker, Resource};
use wasmtime_wasi::p2::bindings::sockets::ip_name_lookup::{self, HostResolveAddressStream, ResolveAddressStream};
use wasmtime_wasi::p2::bindings::sockets::network::{self, ErrorCode, IpAddress, IpAddressFamily, Network};
use wasmtime_wasi::p2::bindings::sockets::{tcp_create_socket, udp_create_socket};
use wasmtime_wasi::p2::{DynPollable, SocketError, SocketResult, TcpSocket, UdpSocket};
use wasmtime_wasi::sockets::{WasiSocketsCtxView, WasiSocketsView};

use crate::plugin::imports::State;
use crate::plugin::report::{Output, printable};

/// Most bytes of a name that a refusal repeats.
const NAME_BYTES: usize = 300;

/// Puts the refusing sockets in place of Wasmtime's.
pub(crate) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    tcp_create_socket::add_to_linker::<State, Sockets>(linker, refusing)?;
    udp_create_socket::add_to_linker::<State, Sockets>(linker, refusing)?;
    ip_name_lookup::add_to_linker::<State, Sockets>(linker, refusing)?;
    Ok(())
}

struct Sockets;

impl HasData for Sockets {
    type Data<'a> = Refusing<'a>;
}

/// One call's view of what there is not.
pub(crate) struct Refusing<'a> {
    sockets: WasiSocketsCtxView<'a>,
    output: Arc<Output>,
}

fn refusing(state: &mut State) -> Refusing<'_> {
    let output = Arc::clone(&state.output);
    Refusing { sockets: state.sockets(), output }
}

impl Refusing<'_> {
    fn refuse<T>(&self, what: &str, code: ErrorCode) -> SocketResult<T> {
        self.output.refused(&format!("{what}: no plugin gets sockets"));
        Err(code.into())
    }
}

impl tcp_create_socket::Host for Refusing<'_> {
    fn create_tcp_socket(&mut self, _: IpAddressFamily) -> SocketResult<Resource<TcpSocket>> {
        self.refuse("a TCP socket", ErrorCode::AccessDenied)
    }
}

impl udp_create_socket::Host for Refusing<'_> {
    async fn create_udp_socket(&mut self, _: IpAddressFamily) -> SocketResult<Resource<UdpSocket>> {
        self.refuse("a UDP socket", ErrorCode::AccessDenied)
    }
}

impl ip_name_lookup::Host for Refusing<'_> {
    fn resolve_addresses(
        &mut self,
        _: Resource<Network>,
        name: String,
    ) -> SocketResult<Resource<ResolveAddressStream>> {
        let what = format!("the address of `{}`", printable(&name, NAME_BYTES));
        self.refuse(&what, ErrorCode::PermanentResolverFailure)
    }
}

impl HostResolveAddressStream for Refusing<'_> {
    fn resolve_next_address(&mut self, stream: Resource<ResolveAddressStream>) -> SocketResult<Option<IpAddress>> {
        self.sockets.resolve_next_address(stream)
    }

    fn subscribe(&mut self, stream: Resource<ResolveAddressStream>) -> wasmtime::Result<Resource<DynPollable>> {
        HostResolveAddressStream::subscribe(&mut self.sockets, stream)
    }

    fn drop(&mut self, stream: Resource<ResolveAddressStream>) -> wasmtime::Result<()> {
        HostResolveAddressStream::drop(&mut self.sockets, stream)
    }
}

impl network::Host for Refusing<'_> {
    fn convert_error_code(&mut self, error: SocketError) -> wasmtime::Result<ErrorCode> {
        self.sockets.convert_error_code(error)
    }

    fn network_error_code(&mut self, error: Resource<wasmtime::Error>) -> wasmtime::Result<Option<ErrorCode>> {
        self.sockets.network_error_code(error)
    }
}

impl network::HostNetwork for Refusing<'_> {
    fn drop(&mut self, network: Resource<Network>) -> wasmtime::Result<()> {
        network::HostNetwork::drop(&mut self.sockets, network)
    }
}
