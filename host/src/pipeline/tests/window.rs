//! What the window hook yields.

use super::*;
use crate::collect::Window;
use crate::model::Payload;
use crate::pipeline::collect_window::{CollectState, Collection};

/// Yields a payload for every record, and one for the window.
struct Both;

fn payloads(index: u32) -> Collected {
    let payload = Payload { index, value: Some(b"{}".to_vec()), ..Payload::default() };
    Collected::Payloads { payloads: vec![(SinkKind::Http, vec![payload])], failed: Vec::new() }
}

#[async_trait]
impl Collect for Both {
    async fn collect(&self, _batch: &Arc<Batch>) -> Result<Collected, CallError> {
        Ok(payloads(1))
    }

    fn has_window_hook(&self) -> bool {
        true
    }

    async fn window_complete(&self, _window: &Window) -> Result<Option<Collected>, CallError> {
        Ok(Some(payloads(1)))
    }
}

/// S62: the window's payloads are known not to have the same name when they come again, the records' own are known to have.
#[tokio::test(start_paused = true)]
async fn s62_only_the_windows_payloads_have_no_stable_name() {
    let (shared, _, _) = shared(Given { collector: Some(Arc::new(Both)), ..Given::answers(Vec::new()) });
    let (window, mut size) = (window(), CollectState::default());
    let collected = Collection::new(&shared, &window, &mut size).run().await.unwrap();
    let own = &collected.round.unwrap().groups[0].batch;
    let hooked = &collected.window_round.groups[0].batch;
    assert_eq!((own.stable, &own.offsets[..]), (true, &[1][..]));
    assert_eq!((hooked.stable, &hooked.offsets[..], &hooked.ordinals[..]), (false, &[2][..], &[3][..]));
}
