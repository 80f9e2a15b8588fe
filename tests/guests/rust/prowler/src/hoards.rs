//! Handles taken and never given back.

use serde::Deserialize;
use wasip2::cli::stdout::get_stdout;
use wasip2::clocks::monotonic_clock::subscribe_duration;
use wasip2::io::poll;

use crate::{Outcome, files};

/// Where files and directories are hoarded.
const ROOT: &str = "/out";

/// Kinds of handles.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum What {
    Files,
    Listings,
    FileStreams,
    Clocks,
    Outputs,
    Sockets,
}

pub(crate) fn hoard(what: What, most: u32) -> Outcome {
    for number in 0..most {
        take(what).map_err(|error| format!("{error} after {number}"))?;
    }
    Ok(format!("{most} held"))
}

fn take(what: What) -> Result<(), String> {
    match what {
        What::Clocks => std::mem::forget(subscribe_duration(3_600_000_000_000)),
        What::Outputs => std::mem::forget(get_stdout()),
        What::Files => std::mem::forget(files::open(&files::root(ROOT)?, "file", true)?),
        What::Listings => {
            let listing = files::root(ROOT)?.read_directory().map_err(|error| error.name().to_owned())?;
            std::mem::forget(listing);
        }
        What::FileStreams => {
            let file = files::open(&files::root(ROOT)?, "file", true)?;
            std::mem::forget(file.read_via_stream(0).map_err(|error| error.name().to_owned())?);
            std::mem::forget(file);
        }
        What::Sockets => {
            use wasip2::sockets::network::IpAddressFamily;
            let made = wasip2::sockets::tcp_create_socket::create_tcp_socket(IpAddressFamily::Ipv4);
            std::mem::forget(made.map_err(|error| error.name().to_owned())?);
        }
    }
    Ok(())
}

pub(crate) fn poll(clocks: u32, milliseconds: u64) -> Outcome {
    let all: Vec<_> = (0..clocks).map(|_| subscribe_duration(milliseconds * 1_000_000)).collect();
    let borrowed: Vec<_> = all.iter().collect();
    Ok(format!("{} of {clocks} ready", poll::poll(&borrowed).len()))
}
