//! `wasi:http` as guests get it: the library's, with its gaps closed. Each has its test among the hostile guests.

use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::p2::bindings::http::outgoing_handler::Host;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, HostOutgoingRequest as _, Method, RequestOptions};
use wasmtime_wasi_http::p2::types::{HostFutureIncomingResponse, HostOutgoingRequest};

use crate::plugin::imports::State;

/// The library's names for its interfaces.
const HANDLER: &str = "wasi:http/outgoing-handler@0.2.12";
const TYPES: &str = "wasi:http/types@0.2.12";
/// Most bytes of a method or an authority. Their text lies on the host's side, once per request that is never sent, and the
/// library takes any length.
const WORD_BYTES: usize = 1024;

/// Puts the functions with the gaps closed in place of the library's.
pub(crate) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.instance(HANDLER)?.func_wrap("handle", handle)?;
    let mut types = linker.instance(TYPES)?;
    types.func_wrap("[method]outgoing-request.set-method", set_method)?;
    types.func_wrap("[method]outgoing-request.set-authority", set_authority)?;
    Ok(())
}

type Request = Resource<HostOutgoingRequest>;
type Set = wasmtime::Result<(Result<(), ()>,)>;

fn set_method(mut store: StoreContextMut<'_, State>, (request, method): (Request, Method)) -> Set {
    if matches!(&method, Method::Other(name) if name.len() > WORD_BYTES) {
        return Ok((Err(()),));
    }
    Ok((store.data_mut().http().set_method(request, method)?,))
}

fn set_authority(mut store: StoreContextMut<'_, State>, (request, authority): (Request, Option<String>)) -> Set {
    if authority.as_ref().is_some_and(|authority| authority.len() > WORD_BYTES) {
        return Ok((Err(()),));
    }
    Ok((store.data_mut().http().set_authority(request, authority)?,))
}

type Handled = wasmtime::Result<(Result<Resource<HostFutureIncomingResponse>, ErrorCode>,)>;

fn handle(
    mut store: StoreContextMut<'_, State>,
    (request, options): (Request, Option<Resource<RequestOptions>>),
) -> Handled {
    let mut view = store.data_mut().http();
    // Without a path the library gives up, and says so in the log as often as a guest likes.
    view.table.get_mut(&request)?.path_with_query.get_or_insert_with(|| "/".to_owned());
    let spent = options.as_ref().map(|options| Resource::<RequestOptions>::new_own(options.rep()));
    let answer = Host::handle(&mut view, request, options);
    // They are the host's now, and the library lets them lie until no handle is left.
    if let Some(spent) = spent {
        view.table.delete(spent)?;
    }
    match answer {
        Ok(future) => Ok((Ok(future),)),
        Err(error) => Ok((Err(error.downcast()?),)),
    }
}
