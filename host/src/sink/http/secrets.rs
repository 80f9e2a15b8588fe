//! What must not be shown of an endpoint that repeats in its answer what it was sent (S85).

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use reqwest::Request;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};

/// Shorter words are no secrets, and taking them out would only make texts unreadable.
const SHORTEST: usize = 6;
/// The same for a path's parts, of which most are plain words.
const SHORTEST_OF_PATH: usize = 16;

/// The words that texts are freed of.
pub(super) struct Secrets(Vec<String>);

impl Secrets {
    /// What is secret of a request.
    pub(super) fn of(request: &Request) -> Self {
        let url = request.url();
        let mut words = vec![url.query().unwrap_or_default().to_owned()];
        words.extend(url.query_pairs().map(|(_, value)| value.into_owned()));
        for (name, value) in request.headers().iter().filter(|(name, _)| *name != CONTENT_TYPE) {
            let value = String::from_utf8_lossy(value.as_bytes());
            // `Bearer <token>` may come back without its first word.
            words.extend(value.split_whitespace().map(str::to_owned));
            let basic = value.rsplit(' ').next().filter(|_| name == AUTHORIZATION);
            if let Some(both) = basic.and_then(|text| BASE64_STANDARD.decode(text).ok()) {
                words.extend(String::from_utf8_lossy(&both).splitn(2, ':').map(str::to_owned));
            }
        }
        words.retain(|word| word.len() >= SHORTEST);
        let parts = url.path_segments().into_iter().flatten();
        words.extend(parts.filter(|part| part.len() >= SHORTEST_OF_PATH).map(str::to_owned));
        // The longest first, so that no part of one is left.
        words.sort_by_key(|word| std::cmp::Reverse(word.len()));
        Self(words)
    }

    /// The text without them.
    pub(super) fn hide(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, word| text.replace(word.as_str(), "…"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use reqwest::Client;

    use super::*;

    #[test]
    fn s85_an_answer_that_repeats_what_was_sent_gives_nothing_away() {
        crate::sink::tls::provide();
        let url = "https://worker:hunter%32hunter2@example.com/services/T0AAAAAA/0123456789abcdef?key=0123456789";
        let request = Client::new().post(url).header("X-Token", "Bearer abcdefgh").header("X-Place", "de").build();
        let secrets = Secrets::of(&request.unwrap());
        let echo = "bad token abcdefgh for worker (hunter2hunter2, d29ya2VyOmh1bnRlcjJodW50ZXIy), de, \
                    /services/T0AAAAAA/0123456789abcdef?key=0123456789, 0123456789";
        assert_eq!(secrets.hide(echo), "bad token … for … (…, …), de, /services/T0AAAAAA/…?…, …");
    }
}
