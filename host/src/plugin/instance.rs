//! One live component: made from a plan, called under a deadline, and never used again once it was stopped.

use std::sync::Arc;
use std::time::Duration;

use wasmtime::Store;
use wasmtime::component::{Instance, ResourceTable};
use wasmtime_wasi_http::WasiHttpCtx;

use super::artifact::Artifact;
use super::bindings::types;
use super::contract::{Contract, Role};
use super::grants;
use super::grants::http::{Client, Requests};
use super::imports::{Limiter, State};
use super::limits::{Limits, bytes, count};
use super::report::{Deadline, Met, Output, Quota, WORDS_BYTES, Who, printable};
use super::{Grants, Options};
use crate::model::{CallError, Fault};
use crate::sink::Queries;

mod meter;
pub(crate) mod slots;
mod spent;

pub(crate) use meter::Abandon;
pub(crate) use spent::{Spent, UnderWay};

/// Longest wait that a guest may ask for; what is beyond is cut to it.
const LONGEST_BACKPRESSURE: Duration = Duration::from_secs(3600);

/// What every kind of plugin has: exports to look up, `setup`, and what comes before its first record.
pub(crate) trait Guest: Sized + Send + 'static {
    /// What `setup` answers.
    type Described: Clone + PartialEq + Send + Sync + 'static;
    /// What it can be.
    const ROLE: Role;
    /// The hook that comes before the first record.
    const PREPARE: &'static str;

    /// Looks the exports up. Fails when an export has another type than the contract says.
    fn load(store: &mut Store<State>, instance: &Instance, contract: &Contract) -> wasmtime::Result<Self>;

    /// Calls `setup`.
    async fn setup(
        &self,
        store: &mut Store<State>,
        context: &types::Context,
    ) -> wasmtime::Result<Result<Self::Described, String>>;

    /// Calls what comes before the first record (S66a).
    async fn prepare(&self, store: &mut Store<State>) -> wasmtime::Result<Result<(), types::Fault>>;
}

/// Everything that an instance is made from.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) artifact: Artifact,
    pub(crate) who: Who,
    pub(crate) slots: u32,
    /// What each slot's instances may say.
    quotas: Vec<Arc<Quota>>,
    name: String,
    options: String,
    grants: Grants,
    queries: Arc<Queries>,
    http: Arc<Client>,
}

impl Plan {
    /// Checks the limits. `name` is the plugin's name in the configuration; of `queries` it gets what it is granted.
    pub(crate) fn new(artifact: Artifact, name: &str, options: &Options, queries: &Queries) -> Result<Self, Fault> {
        let place = artifact.place().to_owned();
        options.limits.checked(&place)?;
        let json = serde_json::to_string(&options.options)
            .map_err(|error| Fault::config(format!("`{place}.options` cannot be written as JSON")).because(error))?;
        let slots = options.limits.slots(&options.grants);
        Ok(Self {
            slots,
            quotas: (0..slots).map(|_| Quota::new(&artifact.engine().ticks, &options.limits)).collect(),
            name: name.to_owned(),
            options: json,
            queries: Arc::new(grants::queries(&options.grants, &place, queries)?),
            http: Client::new(&place, &options.grants, &options.limits)?,
            grants: options.grants.clone(),
            who: Who { label: Who::label_of(&place), place, limits: options.limits.clone() },
            artifact,
        })
    }

    /// The same plan with a single instance.
    pub(crate) fn with_one_slot(&self) -> Self {
        Self { slots: 1, ..self.clone() }
    }

    /// Makes an instance and calls its `setup`. Blocks.
    pub(crate) async fn build<G: Guest>(self: &Arc<Self>, slot: u32, abandon: &Arc<Abandon>) -> Result<Live<G>, Fault> {
        let engine = self.artifact.engine();
        let limits = &self.who.limits;
        let output = Output::new(self.who.label.clone(), Arc::clone(&self.quotas[slot as usize]));
        let mut table = ResourceTable::new();
        table.set_max_capacity(count(limits.handles));
        let wasi = grants::context(&self.grants, &self.who.place, self.artifact.base(), &output)?;
        let spent = Spent::new(&engine.ticks);
        let state = State {
            table,
            wasi,
            http: WasiHttpCtx::new(),
            requests: Requests::new(&self.http, &output, &spent),
            spent,
            limiter: Limiter::new(limits),
            output: Arc::clone(&output),
            queries: Arc::clone(&self.queries),
            place: self.who.place.as_str().into(),
        };
        let mut store = Store::new(&engine.wasmtime, state);
        store.limiter(|state| &mut state.limiter);
        store.set_max_component_handles(count(limits.handles));
        store.set_hostcall_fuel(bytes(limits.hostcall_mebibytes));
        let stopped = |stop: Stop| stop.fault(&self.who, &output);
        let pre = self.artifact.pre();
        let instance = meter::timed(
            &mut store,
            &engine.ticks,
            self.who.limits.setup(),
            abandon,
            "instantiation",
            async |store: &mut Store<State>| pre.instantiate_async(store).await,
        )
        .await
        .map_err(stopped)?;
        let guest = G::load(&mut store, &instance, self.artifact.contract()).map_err(|error| {
            Fault::config(format!("`{}` does not keep to the contract it names", self.who.label))
                .because(format!("{error:#}"))
                .hint("build it again with this Tidegate's text of the contract")
        })?;
        let context =
            types::Context { name: self.name.clone(), slot, slots: self.slots, options: self.options.clone() };
        let described = meter::timed(
            &mut store,
            &engine.ticks,
            self.who.limits.setup(),
            abandon,
            "setup",
            async |store: &mut Store<State>| guest.setup(store, &context).await,
        )
        .await
        .map_err(stopped)?
        .map_err(|words| {
            Fault::config(format!("`{}` does not accept its options", self.who.label))
                .because(printable(&words, WORDS_BYTES))
                .hint(format!("correct `{}.options`", self.who.place))
        })?;
        Ok(Live { plan: Arc::clone(self), store, guest, described, output, prepared: false, generation: 0 })
    }
}

/// An instance that nothing has stopped yet.
pub(crate) struct Live<G: Guest> {
    plan: Arc<Plan>,
    store: Store<State>,
    guest: G,
    pub(crate) described: G::Described,
    output: Arc<Output>,
    /// It has been asked to get ready for its first record.
    pub(crate) prepared: bool,
    /// Tells it from the instances that its slot had before.
    pub(crate) generation: u64,
}

impl<G: Guest> Live<G> {
    /// Calls the guest. After an error the instance must not be used again.
    pub(crate) async fn call<T>(
        &mut self,
        hook: &'static str,
        abandon: &Arc<Abandon>,
        call: impl AsyncFnOnce(&G, &mut Store<State>) -> wasmtime::Result<T>,
    ) -> Result<T, Stop> {
        let guest = &self.guest;
        let ticks = &self.plan.artifact.engine().ticks;
        let limits = &self.plan.who.limits;
        let deadline = if hook == G::PREPARE { limits.setup() } else { limits.call() };
        let call = async |store: &mut Store<State>| call(guest, store).await;
        meter::timed(&mut self.store, ticks, deadline, abandon, hook, call).await
    }

    /// How much it may use.
    pub(crate) fn limits(&self) -> &Limits {
        &self.plan.who.limits
    }

    /// Gets the instance ready for its first record.
    pub(crate) async fn prepare(&mut self, abandon: &Arc<Abandon>) -> Result<(), CallError> {
        let answer = self.call(G::PREPARE, abandon, async |guest, store| guest.prepare(store).await).await;
        match answer {
            Ok(Ok(())) => {
                self.prepared = true;
                Ok(())
            }
            // No row is at stake here, so there is none to blame either.
            Ok(Err(types::Fault::Reject(words))) => {
                Err(fault(&self.plan.who, G::PREPARE, G::ROLE, types::Fault::Fatal(words)))
            }
            Ok(Err(answered)) => Err(fault(&self.plan.who, G::PREPARE, G::ROLE, answered)),
            Err(stop) => Err(CallError::Unavailable(stop.fault(&self.plan.who, &self.output))),
        }
    }

    /// Tells the operator what the guest was refused.
    pub(crate) fn refused(&self, what: &str) {
        self.output.refused(what);
    }

    /// What the end of the instance means for the rows of the call that it ended in.
    pub(crate) fn ended(&self, stop: Stop) -> CallError {
        stop.into_error(&self.plan.who, &self.output)
    }
}

/// Why an instance must not be used again.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The sandbox stopped it, or it stopped itself.
    Trapped { hook: &'static str, error: wasmtime::Error },
    /// It ran, or waited for something of its own, for as long as a call may take.
    Overran { hook: &'static str, limit: Deadline, is_waiting: bool, error: Option<wasmtime::Error> },
    /// It waited for a request for as long as a call may take.
    Waited { hook: &'static str, limit: Deadline },
    /// It answered what the contract does not allow.
    Broke { hook: &'static str, how: String },
    /// It answered more than it may.
    Exceeded { hook: &'static str, met: Met },
    /// Nobody waits for the answer any more.
    Abandoned,
}

impl Stop {
    /// In words.
    pub(crate) fn fault(self, who: &Who, output: &Output) -> Fault {
        match self {
            Self::Trapped { hook, error } => who.trapped(hook, &error, output),
            Self::Overran { hook, limit, is_waiting: false, error } => who.overran(hook, limit, error.as_ref(), output),
            Self::Overran { hook, limit, is_waiting: true, .. } => who.idled(hook, limit, output),
            Self::Waited { hook, limit } => who.waited(hook, limit, output),
            Self::Broke { hook, how } => who.broke(hook, &how, output),
            Self::Exceeded { hook, met } => who.exceeded(hook, &met),
            Self::Abandoned => Fault::host(format!("a call of `{}` was given up", who.label)),
        }
    }

    /// Typed by what it means for the rows of the call (S15a, S63).
    pub(crate) fn into_error(self, who: &Who, output: &Output) -> CallError {
        let met_limit = match &self {
            Self::Overran { .. } | Self::Exceeded { .. } => true,
            Self::Trapped { error, .. } => Met::read(error, &who.limits).is_some(),
            Self::Waited { .. } | Self::Broke { .. } | Self::Abandoned => false,
        };
        let waited = matches!(self, Self::Waited { .. } | Self::Abandoned);
        let fault = self.fault(who, output);
        match (met_limit, waited) {
            (true, _) => CallError::LimitExceeded(fault),
            (false, true) => CallError::Timeout(fault),
            (false, false) => CallError::Trap(fault),
        }
    }
}

/// A wait that a guest asks for, within its bound (S33).
pub(crate) fn backpressure(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds).min(LONGEST_BACKPRESSURE)
}

/// A fault that the guest answered, typed (S44).
pub(crate) fn fault(who: &Who, hook: &str, role: Role, answered: types::Fault) -> CallError {
    let label = &who.label;
    let refused = |message: String| match role {
        Role::Sink => Fault::destination(message),
        Role::Collector => Fault::plugin(message),
    };
    let words = |words: &str| printable(words, WORDS_BYTES);
    match answered {
        types::Fault::Backpressure(wait) => CallError::Backpressure(backpressure(wait)),
        types::Fault::Unavailable(why) => CallError::Unavailable(
            Fault::destination(format!("`{label}` finds its destination unavailable in `{hook}`")).because(words(&why)),
        ),
        types::Fault::Reject(why) => {
            CallError::Reject(refused(format!("`{label}` refused the rows of `{hook}`")).because(words(&why)))
        }
        types::Fault::Fatal(why) => {
            CallError::Fatal(refused(format!("`{label}` cannot go on after `{hook}`")).because(words(&why)))
        }
    }
}
