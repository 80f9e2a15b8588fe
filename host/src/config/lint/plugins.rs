//! What is wrong with a plugin's part of the configuration.

use super::{Lint, listed};
use crate::plugin;

impl Lint<'_> {
    pub(super) fn plugin(&mut self, key: &[&str], options: &plugin::Options) {
        let path =
            |rest: &[&'static str]| -> Vec<String> { key.iter().chain(rest).map(|part| (*part).to_owned()).collect() };
        let component = path(&["component"]);
        if options.component.as_os_str().is_empty() {
            self.find(
                "C015",
                &as_strs(&component),
                &format!("`{}` is empty", component.join(".")),
                "name the component's `.wasm` file",
            );
        }
        let sha256 = path(&["sha256"]);
        let digest = &options.sha256;
        if !digest.is_empty() && (digest.len() != 64 || !digest.bytes().all(|byte| byte.is_ascii_hexdigit())) {
            self.find(
                "C014",
                &as_strs(&sha256),
                &format!("`{}` is no SHA-256: 64 hexadecimal digits", sha256.join(".")),
                "`sha256sum` prints it",
            );
        }
        for limit in options.limits.all() {
            if let Some(bounds) = limit.out_of_bounds() {
                let limit = path(&["limits", limit.key]);
                self.find("C008", &as_strs(&limit), &format!("`{}` must be {bounds}", limit.join(".")), "");
            }
        }
        let directories = path(&["grants", "directories"]);
        let mut guests = Vec::new();
        for directory in &options.grants.directories {
            let guest = directory.guest.trim_end_matches('/');
            if guests.contains(&guest) {
                let names = listed(&[self.shown(&directory.guest)], "and");
                self.find(
                    "C012",
                    &as_strs(&directories),
                    &format!("`{}` gives the guest two directories under the name {names}", directories.join(".")),
                    "give each its own `guest`",
                );
            }
            guests.push(guest);
        }
        if options.grants.http.is_empty() && !options.grants.http_addresses.is_empty() {
            let addresses = path(&["grants", "http_addresses"]);
            self.find(
                "C020",
                &as_strs(&addresses),
                &format!("`{}` names addresses, but there is no grant whose host could have them", addresses.join(".")),
                "add the origin to `http`, such as `https://intranet.example.com`, or take the addresses away",
            );
        }
        self.allowed_sinks(&path(&["grants", "allowed_sinks"]), options, key == ["collect"]);
        let databases = path(&["grants", "postgres"]);
        for name in options.grants.postgres.iter().filter(|name| !self.config.sinks.postgres.contains_key(*name)) {
            let name = self.shown(name);
            self.find(
                "C018",
                &as_strs(&databases),
                &format!("`{}` names `{name}`, but there is no `sinks.postgres.{name}`", databases.join(".")),
                "add the sink, or take the grant away",
            );
        }
    }

    fn allowed_sinks(&mut self, key: &[String], options: &plugin::Options, collects: bool) {
        let Some(names) = &options.grants.allowed_sinks else { return };
        let key_name = key.join(".");
        if !collects {
            let words = format!("`{key_name}` has no meaning: a sink addresses no other");
            self.find("C019", &as_strs(key), &words, "take it away; it belongs under `collect.grants`");
            return;
        }
        let configured: Vec<String> = self.config.sinks.names().map(|(kind, name)| format!("{kind}/{name}")).collect();
        for name in names.iter().filter(|name| !configured.contains(name)) {
            let name = self.shown(name);
            let known: Vec<&str> = configured.iter().map(String::as_str).collect();
            let words = format!("`{key_name}` names `{name}`, which is no sink");
            self.find("C019", &as_strs(key), &words, &format!("the sinks are {}", listed(&known, "and")));
        }
    }
}

fn as_strs(path: &[String]) -> Vec<&str> {
    path.iter().map(String::as_str).collect()
}
