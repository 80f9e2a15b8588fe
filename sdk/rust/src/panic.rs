use std::io::Write as _;
use std::panic::PanicHookInfo;

/// Makes every panic one line on standard error, which the host shows as the reason of the trap that follows.
pub fn install() {
    std::panic::set_hook(Box::new(|info| {
        let line = line(info);
        // Nobody is left to tell when standard error is gone.
        let _ = std::io::stderr().write_all(line.as_bytes());
    }));
}

fn line(info: &PanicHookInfo<'_>) -> String {
    let text = info.payload_as_str().unwrap_or("a value that is no text").replace('\n', "\\n");
    match info.location() {
        Some(place) => format!("panicked at '{}:{}': {text}\n", place.file(), place.line()),
        None => format!("panicked: {text}\n"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    #[test]
    fn a_panic_is_one_line_with_its_place() {
        let seen = Arc::new(Mutex::new(String::new()));
        let hook = {
            let seen = seen.clone();
            move |info: &std::panic::PanicHookInfo<'_>| {
                if let Ok(mut seen) = seen.lock() {
                    *seen = super::line(info);
                }
            }
        };
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(hook));
        let caught = std::panic::catch_unwind(|| panic!("no order\nat all"));
        std::panic::set_hook(before);
        assert!(caught.is_err());
        let seen = seen.lock().map(|seen| seen.clone()).unwrap_or_default();
        assert!(seen.starts_with("panicked at '") && seen.contains("panic.rs:"), "{seen}");
        assert!(seen.ends_with("': no order\\nat all\n"), "{seen}");
    }
}
