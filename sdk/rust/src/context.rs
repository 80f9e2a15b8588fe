use serde::de::DeserializeOwned;

use crate::Context;

impl Context {
    /// The JSON under `options` in the configuration.
    ///
    /// # Errors
    /// A sentence that names the plugin and what does not fit. Give your type `#[serde(deny_unknown_fields)]`, so that a
    /// misspelt option is an error too.
    pub fn options<T: DeserializeOwned>(&self) -> Result<T, String> {
        serde_json::from_str(&self.options)
            .map_err(|error| format!("the options of `{}` do not fit: {error}", self.name))
    }
}

#[cfg(test)]
mod tests {
    use crate::Context;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Options {
        #[serde(default)]
        limit: u32,
    }

    fn context(options: &str) -> Context {
        Context { name: "csv".into(), slot: 0, slots: 1, options: options.into() }
    }

    #[test]
    fn options_are_read_and_an_unknown_one_is_named() {
        assert_eq!(context(r#"{"limit":3}"#).options::<Options>().map(|options| options.limit), Ok(3));
        assert_eq!(context("{}").options::<Options>().map(|options| options.limit), Ok(0));
        let error =
            context(r#"{"limt":3}"#).options::<Options>().map(|options| options.limit).err().unwrap_or_default();
        assert!(
            error.starts_with("the options of `csv` do not fit: unknown field `limt`, expected `limit`"),
            "{error}"
        );
    }
}
