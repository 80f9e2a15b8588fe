//! Which contract a component was built for, read from its type before anything of it runs. Wasmtime alone would not tell: a
//! component of another version instantiates, and its exports are just not found.

use std::path::Path;

use semver::Version;
use wasmtime::component::Component;

use crate::model::Fault;

/// The contract's version that this Tidegate speaks. Components of the same 0.x, whatever their patch, are taken.
pub(crate) const SPOKEN: Version = Version::new(0, 1, 0);

const PACKAGE: &str = "tidegate:plugin/";
const EXPORTS_SHOWN: usize = 5;

/// What a plugin can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// A destination.
    Sink,
    /// What turns records into payloads.
    Collector,
}

/// The optional interfaces that a component exports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hooks {
    /// `window-hook`: called once per window (S62).
    pub window: bool,
    /// `delivery-hook`: decides about payloads that a sink did not take (S79).
    pub delivery: bool,
    /// `ready-hook`: called once per instance before its first record (S66).
    pub ready: bool,
}

/// What a component's type says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Contract {
    pub(crate) version: Version,
    pub(crate) sink: bool,
    pub(crate) collector: bool,
    pub(crate) hooks: Hooks,
}

impl Contract {
    /// Reads the component's type.
    ///
    /// # Errors
    /// When the component exports neither a sink nor a collector, or speaks another version.
    pub(crate) fn read(component: &Component, engine: &wasmtime::Engine, path: &Path) -> Result<Self, Fault> {
        let described = component.component_type();
        let exports: Vec<&str> = described.exports(engine).map(|(name, _)| name).collect();
        let imports = described.imports(engine).map(|(name, _)| name);
        Self::judge(&exports, imports, path)
    }

    fn judge<'a>(exports: &[&'a str], imports: impl Iterator<Item = &'a str>, path: &Path) -> Result<Self, Fault> {
        let shown = path.display();
        let mut contract = Self { version: SPOKEN, sink: false, collector: false, hooks: Hooks::default() };
        for &name in exports {
            match ours(name) {
                Some((_, Some(version))) if !speaks(&version) => return Err(other_version(path, name, &version)),
                Some((interface, Some(version))) => {
                    match interface {
                        "sink" => contract.sink = true,
                        "collector" => contract.collector = true,
                        "window-hook" => contract.hooks.window = true,
                        "delivery-hook" => contract.hooks.delivery = true,
                        "ready-hook" => contract.hooks.ready = true,
                        // A newer patch of the contract may have interfaces that are not known here.
                        _ => continue,
                    }
                    contract.version = version;
                }
                Some((_, None)) => {
                    return Err(Fault::config(format!("`{shown}` exports `{name}` without a version"))
                        .hint(format!("build it with the text of the contract, `tidegate:plugin@{SPOKEN}`")));
                }
                None => {}
            }
        }
        if !contract.sink && !contract.collector {
            return Err(wrong_world(path, exports));
        }
        // What it imports was built from the same text, so another version there is a mismatch too.
        for name in imports {
            if let Some((_, Some(version))) = ours(name)
                && !speaks(&version)
            {
                return Err(other_version(path, name, &version));
            }
        }
        Ok(contract)
    }

    /// Refuses a collector where a sink is wanted, and the other way round.
    pub(crate) fn require(&self, role: Role, place: &str, path: &Path) -> Result<(), Fault> {
        let (is, wanted, other) = match role {
            Role::Sink => (self.sink, "sink", "collector"),
            Role::Collector => (self.collector, "collector", "sink"),
        };
        if is {
            return Ok(());
        }
        Err(Fault::config(format!("`{}` is a {other}, and `{place}` wants a {wanted}", path.display()))
            .because(format!("it exports `{PACKAGE}{other}@{}`", self.version))
            .hint(format!("build it for the world `{PACKAGE}{wanted}-plugin@{SPOKEN}`")))
    }
}

/// The interface and version of a name out of our package.
fn ours(name: &str) -> Option<(&str, Option<Version>)> {
    let rest = name.strip_prefix(PACKAGE)?;
    match rest.split_once('@') {
        Some((interface, version)) => Some((interface, Version::parse(version).ok())),
        None => Some((rest, None)),
    }
}

fn speaks(version: &Version) -> bool {
    (version.major, version.minor) == (SPOKEN.major, SPOKEN.minor) && version.pre.is_empty()
}

fn other_version(path: &Path, name: &str, version: &Version) -> Fault {
    Fault::config(format!(
        "`{}` speaks version {version} of the plugin contract, and this Tidegate speaks {SPOKEN}",
        path.display()
    ))
    .because(format!("its type names `{name}`"))
    .hint(if *version < SPOKEN {
        format!("build the plugin again with version {SPOKEN} of the contract")
    } else {
        format!("use a newer Tidegate, or build the plugin with version {SPOKEN} of the contract")
    })
}

fn wrong_world(path: &Path, exports: &[&str]) -> Fault {
    let mut names: Vec<String> = exports.iter().take(EXPORTS_SHOWN).map(|name| format!("`{name}`")).collect();
    if exports.len() > EXPORTS_SHOWN {
        names.push(format!("and {} more", exports.len() - EXPORTS_SHOWN));
    }
    let exported = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
    Fault::config(format!("`{}` is a component, but no Tidegate plugin", path.display()))
        .because(format!("it exports {exported}"))
        .because(format!("a plugin exports `{PACKAGE}sink@{SPOKEN}` or `{PACKAGE}collector@{SPOKEN}`"))
        .hint(format!("build it for the world `{PACKAGE}sink-plugin@{SPOKEN}` or `{PACKAGE}collector-plugin@{SPOKEN}`"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn judge(exports: &[&str], imports: &[&str]) -> Result<Contract, Fault> {
        Contract::judge(exports, imports.iter().copied(), Path::new("x.wasm"))
    }

    #[test]
    fn hooks_are_read_from_the_type() {
        let exports =
            ["tidegate:plugin/collector@0.1.3", "tidegate:plugin/ready-hook@0.1.3", "tidegate:plugin/later-hook@0.1.3"];
        let contract = judge(&exports, &["wasi:cli/stdout@0.2.6", "tidegate:plugin/types@0.1.3"]).unwrap();
        assert_eq!(contract.hooks, Hooks { ready: true, ..Hooks::default() });
        assert!(contract.collector && !contract.sink);
        assert_eq!(contract.version, Version::new(0, 1, 3));
    }

    #[test]
    fn another_version_names_both() {
        for (exports, imports) in [
            (&["tidegate:plugin/sink@0.2.0"][..], &[][..]),
            (&["tidegate:plugin/sink@0.1.0"], &["tidegate:plugin/log@0.2.0"]),
        ] {
            let fault = judge(exports, imports).unwrap_err();
            assert!(fault.message.contains("0.2.0") && fault.message.contains("0.1.0"), "{fault}");
        }
    }

    #[test]
    fn a_role_that_is_not_there_is_named() {
        let contract = judge(&["tidegate:plugin/collector@0.1.0"], &[]).unwrap();
        let fault = contract.require(Role::Sink, "sinks.plugin.csv", Path::new("x.wasm")).unwrap_err();
        assert_eq!(fault.message, "`x.wasm` is a collector, and `sinks.plugin.csv` wants a sink");
        assert!(contract.require(Role::Collector, "collect", Path::new("x.wasm")).is_ok());
    }

    #[test]
    fn another_world_is_told_what_it_exports() {
        let fault = judge(&["wasi:http/incoming-handler@0.2.0"], &[]).unwrap_err();
        assert!(fault.to_string().contains("it exports `wasi:http/incoming-handler@0.2.0`"), "{fault}");
        assert!(judge(&[], &[]).unwrap_err().to_string().contains("it exports nothing"));
    }
}
