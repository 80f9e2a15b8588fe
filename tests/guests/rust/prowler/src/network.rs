//! Ways into the network, none of which leads anywhere.

use serde::Deserialize;
use wasip2::sockets::instance_network::instance_network;
use wasip2::sockets::ip_name_lookup::resolve_addresses;
use wasip2::sockets::network::{ErrorCode, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress};
use wasip2::sockets::tcp_create_socket::create_tcp_socket;
use wasip2::sockets::udp_create_socket::create_udp_socket;

use crate::Outcome;

/// A way into the network.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Way {
    TcpConnect,
    TcpBind,
    UdpBind,
    UdpSend,
    Lookup,
}

fn no(error: ErrorCode) -> String {
    error.name().to_owned()
}

fn address(port: u16) -> IpSocketAddress {
    IpSocketAddress::Ipv4(Ipv4SocketAddress { port, address: (127, 0, 0, 1) })
}

pub(crate) fn dial(way: Way) -> Outcome {
    let network = instance_network();
    match way {
        Way::TcpConnect => {
            let socket = create_tcp_socket(IpAddressFamily::Ipv4).map_err(no)?;
            socket.start_connect(&network, address(9)).map_err(no)?;
            socket.subscribe().block();
            socket.finish_connect().map_err(no)?;
        }
        Way::TcpBind => {
            let socket = create_tcp_socket(IpAddressFamily::Ipv4).map_err(no)?;
            socket.start_bind(&network, address(0)).map_err(no)?;
            socket.finish_bind().map_err(no)?;
        }
        Way::UdpBind => {
            let socket = create_udp_socket(IpAddressFamily::Ipv4).map_err(no)?;
            socket.start_bind(&network, address(0)).map_err(no)?;
            socket.finish_bind().map_err(no)?;
        }
        Way::UdpSend => {
            let socket = create_udp_socket(IpAddressFamily::Ipv4).map_err(no)?;
            socket.start_bind(&network, address(0)).map_err(no)?;
            socket.finish_bind().map_err(no)?;
            socket.stream(Some(address(9))).map_err(no)?;
        }
        Way::Lookup => {
            let found = resolve_addresses(&network, "localhost").map_err(no)?;
            found.subscribe().block();
            found.resolve_next_address().map_err(no)?;
        }
    }
    Ok("reached".into())
}
