//! Values of options that may change while the process runs, because files hold a part of them: passwords and tokens that
//! are rotated. Who connects anew reads them anew.

use std::fmt;
use std::sync::Arc;

use crate::model::Fault;

/// An option's value of which a file holds a part, such as `postgresql://app:${file:/run/secrets/password}@db/app`.
#[derive(Clone)]
pub struct Secret(Arc<dyn Fn() -> Result<String, Fault> + Send + Sync>);

impl Secret {
    /// A value that `read` puts together from what the files hold at that moment. It may block.
    pub fn new(read: impl Fn() -> Result<String, Fault> + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// The value as it is now.
    ///
    /// # Errors
    /// When a file cannot be read; never with what it holds.
    pub async fn read(&self) -> Result<String, Fault> {
        let read = Arc::clone(&self.0);
        let value = tokio::task::spawn_blocking(move || read()).await;
        value.unwrap_or_else(|error| Err(Fault::host("a secret's file could not be read").because(error)))
    }
}

impl fmt::Debug for Secret {
    /// Without the value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").finish_non_exhaustive()
    }
}
