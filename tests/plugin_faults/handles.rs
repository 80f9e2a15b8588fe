//! Guests that take handles and give none back.

use serde_json::json;
use tidegate::sink::Sink;

use crate::machine::open_below;
use crate::prowler;
use crate::stage::{Stage, stopped};
use crate::wat::Wat;

attacks! {
    files_opened_without_end = hoard("files"),
    listings_opened_without_end = hoard("listings"),
    streams_of_files_opened_without_end = hoard("file-streams"),
    clocks_set_without_end = hoard("clocks"),
    outputs_opened_without_end = hoard("outputs"),
    resources_of_its_own_without_end = own(),
}

const HANDLES: usize = 100;

async fn hoard(stage: &Stage, what: &str) {
    let folder = stage.made("granted");
    std::fs::write(folder.join("file"), "hoarded").unwrap();
    let more = json!({
        "limits": { "handles": HANDLES, "call_timeout_seconds": 5.0 },
        "grants": { "directories": [{ "host": folder, "guest": "/out", "access": "write" }] },
    });
    let sink = prowler::start(stage, more).await;
    let sample = {
        let folder = folder.clone();
        let over = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let told = std::sync::Arc::clone(&over);
        let watch = std::thread::spawn(move || {
            let mut most = 0;
            while !told.load(std::sync::atomic::Ordering::Acquire) {
                most = most.max(open_below(&folder));
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            most
        });
        (over, watch)
    };
    let step = json!({ "do": "hoard", "what": what, "most": 100_000 });
    let fault = stopped(sink.deliver(&prowler::steps(stage, &[step])).await);
    sample.0.store(true, std::sync::atomic::Ordering::Release);
    let most = sample.1.join().unwrap();
    let message = "`{}` wanted more than its 100 handles in `deliver`, and was stopped";
    stage.said(&fault, message, "if that is legitimate, raise `<place>.limits.handles`");
    assert!(most <= 2 * HANDLES, "{most} files were open");
    // The instance is gone, with all that it held; the next one has what it is granted.
    let step = json!({ "do": "hoard", "what": what, "most": 10 });
    assert_eq!(prowler::told(stage, &sink, &[step]).await, ["ok 10 held"]);
    drop(sink);
    assert_eq!(open_below(&folder), 0);
    stage.is_silent();
}

/// What a guest makes of its own lies in the host's tables all the same.
async fn own(stage: &Stage) {
    let things = "attack:guest/things";
    let guest = Wat::sink()
        .package("interface things { resource thing; }", "export things;")
        .import_only(&format!("[export]{things}"), "[resource-new]thing", "new", "(param i32) (result i32)")
        .with("(global $left (mut i32) (i32.const 1000))")
        .on(
            "deliver",
            "(loop $more
                (drop (call $new (i32.const 1)))
                (global.set $left (i32.sub (global.get $left) (i32.const 1)))
                (br_if $more (global.get $left)))",
        );
    let more = json!({ "limits": { "handles": HANDLES, "call_timeout_seconds": 5.0 } });
    let fault = stage.stopped_in_deliver(&guest, more).await;
    let message = "`{}` wanted more than its 100 handles in `deliver`, and was stopped";
    stage.said(&fault, message, "if that is legitimate, raise `<place>.limits.handles`");
    stage.is_silent();
}
