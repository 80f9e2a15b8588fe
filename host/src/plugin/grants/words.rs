//! The words in which a guest may hear of errors: what is wrong, and nothing of where in the host it was noticed.

use wasmtime::component::{HasData, Linker, Resource, ResourceTable};
use wasmtime_wasi::p2::bindings::io::error::{self, Error, Host, HostError};

use crate::plugin::imports::State;

/// Puts plain words in place of Wasmtime's debugging ones, which name functions of the host where `RUST_BACKTRACE` is set.
pub(crate) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    error::add_to_linker::<State, Words>(linker, |state| Plain(&mut state.table))?;
    Ok(())
}

struct Words;

impl HasData for Words {
    type Data<'a> = Plain<'a>;
}

/// One call's view of the errors.
pub(crate) struct Plain<'a>(&'a mut ResourceTable);

impl Host for Plain<'_> {}

impl HostError for Plain<'_> {
    fn to_debug_string(&mut self, error: Resource<Error>) -> wasmtime::Result<String> {
        Ok(format!("{:#}", self.0.get(&error)?))
    }

    fn drop(&mut self, error: Resource<Error>) -> wasmtime::Result<()> {
        self.0.delete(error)?;
        Ok(())
    }
}
