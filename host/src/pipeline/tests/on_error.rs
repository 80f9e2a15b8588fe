//! What becomes of single rows, by `on_error`, by the hook and by default.

use super::*;

fn retry(index: u32) -> Answer {
    Ok(vec![Failure::retry(index, "busy")])
}

fn reject(index: u32) -> Answer {
    Ok(vec![Failure::reject(index, "bad")])
}

fn unavailable(index: u32) -> Answer {
    Ok(vec![Failure::unavailable(index, "gone")])
}

fn backpressure(index: u32, seconds: u64) -> Answer {
    Ok(vec![Failure::backpressure(index, Duration::from_secs(seconds), "too many requests")])
}

const ALL: [Option<OnError>; 5] =
    [None, Some(OnError::Dlq), Some(OnError::Retry), Some(OnError::Skip), Some(OnError::Abort)];

#[tokio::test(start_paused = true)]
async fn s37_a_wait_that_was_asked_for_is_no_attempt_and_no_error() {
    for on_error in ALL {
        let answers = [backpressure(1, 5)].into_iter().chain((0..20).map(|_| backpressure(0, 5))).collect();
        let told = settle(Given { max_retries: 0, ..Given::answers(answers).on_error(on_error) }).await;
        assert!(told.stopped.is_none() && told.letters.is_empty(), "{on_error:?}");
        assert_eq!(told.counts(), [3, 0, 0], "{on_error:?}");
        let expected: Vec<&[i64]> = [&[0, 1, 2][..]].into_iter().chain([&[1][..]; 21]).collect();
        assert_eq!(told.offsets(), expected, "only the row that waits comes again");
        assert_eq!(told.times(), (0..=21).map(|call| call * 5000).collect::<Vec<_>>());
    }
}

#[tokio::test(start_paused = true)]
async fn s37_the_longest_wait_of_a_call_counts_and_the_hook_is_not_asked() {
    let hook = Arc::new(Hook { action: Action::Skip, asked: Mutex::default() });
    let both = Ok(vec![
        Failure::backpressure(0, Duration::from_secs(2), "wait"),
        Failure::backpressure(2, Duration::from_secs(9), "wait"),
    ]);
    let told = settle(Given { collector: Some(hook.clone()), ..Given::answers(vec![both]) }).await;
    assert_eq!((told.offsets(), told.times()), (vec![&[0, 1, 2][..], &[0, 2]], vec![0, 9000]));
    assert_eq!((told.counts(), hook.asked.lock().unwrap().len()), ([3, 0, 0], 0));
}

/// S33: an endpoint that says "now" again and again is not asked in a tight loop.
#[tokio::test(start_paused = true)]
async fn s33_no_wait_at_all_is_not_believed_twice() {
    let told = settle(Given::answers((0..4).map(|_| backpressure(0, 0)).collect())).await;
    // Row 0 stands first in every call.
    assert_eq!(told.times(), [0, 0, 100, 200, 300]);
}

#[tokio::test(start_paused = true)]
async fn s37_a_wait_between_attempts_does_not_count_and_does_not_forgive() {
    let answers = vec![
        retry(0),
        backpressure(0, 60),
        retry(0),
        backpressure(0, 60),
        backpressure(0, 60),
        retry(0),
        retry(0),
        retry(0),
    ];
    let told = settle(Given::answers(answers).on_error(Some(OnError::Retry))).await;
    assert_eq!(told.dead(), [(0, 4, FailureKind::Retry)]);
    assert_eq!(told.calls.len(), 7);
    assert_eq!(told.counts(), [2, 0, 1]);
}

/// S37, S80: a row that waits for another has all its attempts left when it is sent itself.
#[tokio::test(start_paused = true)]
async fn s37_attempts_are_counted_for_each_row() {
    let both = || Ok(vec![Failure::retry(0, "busy"), Failure::backpressure(1, Duration::ZERO, "waits for the other")]);
    let given = Given { max_retries: 1, ..Given::answers(vec![both(), both(), retry(0)]) };
    let told = settle(given.on_error(Some(OnError::Retry))).await;
    assert_eq!(told.offsets(), [&[0, 1, 2][..], &[0, 1], &[1], &[1]]);
    assert_eq!((told.dead(), told.counts()), (vec![(0, 2, FailureKind::Retry)], [2, 0, 1]));
}

/// S41: neither single rows nor whole calls that meet an unavailable destination are ever given up.
#[tokio::test(start_paused = true)]
async fn s41_an_unavailable_destination_is_waited_for() {
    let answers = (0..200).map(|round| match round {
        0..100 => Err(CallError::Unavailable(Fault::destination("refused"))),
        _ => Ok(vec![
            Failure::unavailable(0, "refused"),
            Failure::unavailable(1, "refused"),
            Failure::unavailable(2, "refused"),
        ]),
    });
    let told = settle(Given { max_retries: 0, ..Given::answers(answers.collect()) }).await;
    assert!(told.stopped.is_none() && told.letters.is_empty());
    assert_eq!((told.calls.len(), told.counts()), (201, [3, 0, 0]));
    let waits: Vec<Millis> = told.times().windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(waits[..3].iter().zip([100, 200, 400]).all(|(wait, most)| *wait <= most), "{waits:?}");
    assert!(waits.iter().all(|wait| *wait <= 60_000), "{waits:?}");
    assert!(waits.iter().max() > Some(&30_000), "the waits grow: {waits:?}");
}

#[tokio::test(start_paused = true)]
async fn s41_one_unavailable_row_does_not_repeat_its_neighbours() {
    let told = settle(Given::answers(vec![unavailable(1), unavailable(0)])).await;
    assert_eq!(told.offsets(), [&[0, 1, 2][..], &[1], &[1]]);
    assert_eq!(told.counts(), [3, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn s79_on_error_decides_of_a_destination_that_is_unavailable_too() {
    let told = settle(Given::answers(vec![unavailable(1)]).on_error(Some(OnError::Dlq))).await;
    assert_eq!((told.dead(), told.counts()), (vec![(1, 1, FailureKind::Unavailable)], [2, 0, 1]));
    let told = settle(Given::answers(vec![unavailable(1)]).on_error(Some(OnError::Skip))).await;
    assert_eq!((told.calls.len(), told.counts()), (1, [2, 1, 0]));
    let told = settle(Given::answers(vec![unavailable(1)]).on_error(Some(OnError::Abort))).await;
    assert!(matches!(told.stopped, Some(Stop::Abort(Abort::Destination, _))));
    let answers = [unavailable(1)].into_iter().chain((0..9).map(|_| unavailable(0))).collect();
    let told = settle(Given::answers(answers).on_error(Some(OnError::Retry))).await;
    assert_eq!((told.calls.len(), told.dead()), (4, vec![(1, 4, FailureKind::Unavailable)]));
}

/// S79a: left to itself, what never will be written is dead-lettered at once, and what may be later after its attempts.
#[tokio::test(start_paused = true)]
async fn s79a_the_table_decides_when_nothing_else_is_said() {
    let both = || Ok(vec![Failure::retry(0, "busy"), Failure::reject(2, "bad")]);
    let mut answers = vec![both()];
    answers.extend((0..9).map(|_| retry(0)));
    let mut told = settle(Given::answers(answers)).await;
    told.letters.sort_by_key(|letter| letter.offset);
    assert_eq!(told.dead(), [(0, 4, FailureKind::Retry), (2, 1, FailureKind::Reject)]);
    let reasons: Vec<_> = told.letters.iter().map(|letter| letter.error.as_str()).collect();
    assert_eq!(reasons, ["busy", "bad"]);
    assert_eq!((told.offsets(), told.counts()), (vec![&[0, 1, 2][..], &[0], &[0], &[0]], [1, 0, 2]));
    let mut told = settle(Given::answers(vec![both()]).on_error(Some(OnError::Dlq))).await;
    told.letters.sort_by_key(|letter| letter.offset);
    assert_eq!(told.dead(), [(0, 1, FailureKind::Retry), (2, 1, FailureKind::Reject)]);
    assert_eq!((told.calls.len(), told.counts()), (1, [1, 0, 2]));
}

/// S79c: rows that were not tried because of another are sent again at once, without it, and no attempt is counted.
#[tokio::test(start_paused = true)]
async fn s79c_neighbours_of_a_culprit_are_sent_again_at_once() {
    for on_error in ALL.into_iter().filter(|on_error| *on_error != Some(OnError::Abort)) {
        let spoiled = Ok(vec![
            Failure::not_tried(0, "its batch was refused"),
            Failure::reject(1, "no key"),
            Failure::not_tried(2, "its batch was refused"),
        ]);
        let told = settle(Given { max_retries: 0, ..Given::answers(vec![spoiled]).on_error(on_error) }).await;
        assert_eq!((told.offsets(), told.lasted), (vec![&[0, 1, 2][..], &[0, 2]], 0), "{on_error:?}");
        assert_eq!(told.counters.delivered.get(), 2);
        assert_eq!(told.counters.retried.get(), 0);
    }
    // An answer in which nobody is to blame is no answer: such rows have their attempts like others.
    let nobody = || Ok((0..3).map(|row| Failure::not_tried(row, "its batch was refused")).collect());
    let told = settle(Given { max_retries: 1, ..Given::answers(vec![nobody(), nobody(), nobody()]) }).await;
    assert_eq!((told.calls.len(), told.counts()), (2, [0, 0, 3]));
}

/// S79, S84: a hook that answers `default` leaves the choice to `on_error`, and that to the table.
#[tokio::test(start_paused = true)]
async fn s84_a_hook_without_an_opinion_leaves_the_choice() {
    let hook = || Arc::new(Hook { action: Action::Default, asked: Mutex::default() });
    let given = Given { collector: Some(hook()), ..Given::answers(vec![unavailable(1), unavailable(0)]) };
    let told = settle(given).await;
    assert_eq!((told.letters.len(), told.counts()), (0, [3, 0, 0]), "an outage is waited for");
    let given = Given::answers(vec![unavailable(1)]).on_error(Some(OnError::Skip));
    let told = settle(Given { collector: Some(hook()), ..given }).await;
    assert_eq!(told.counts(), [2, 1, 0]);
}

#[tokio::test(start_paused = true)]
async fn s80_s81_retry_asks_so_often_and_then_dead_letters() {
    for (max_retries, calls) in [(3, 4), (1, 2), (0, 1)] {
        let answers = [retry(1)].into_iter().chain((0..9).map(|_| retry(0))).collect();
        let told = settle(Given { max_retries, ..Given::answers(answers).on_error(Some(OnError::Retry)) }).await;
        let expected: Vec<&[i64]> = [&[0, 1, 2][..], &[1], &[1], &[1]].into_iter().take(calls).collect();
        assert_eq!(told.offsets(), expected, "S76: what was delivered is not repeated");
        assert_eq!(told.dead(), [(1, u32::try_from(calls).unwrap(), FailureKind::Retry)]);
        assert_eq!(told.counts(), [2, 0, 1]);
        assert!(told.lasted <= 100 + 200 + 400, "S83: {} ms", told.lasted);
    }
    let told = settle(Given::answers(vec![retry(1), retry(0)]).on_error(Some(OnError::Retry))).await;
    assert_eq!((told.calls.len(), told.counts()), (3, [3, 0, 0]));
}

#[tokio::test(start_paused = true)]
async fn s80_what_never_will_be_written_is_not_tried_again() {
    let both = Ok(vec![Failure::reject(0, "bad"), Failure::retry(1, "busy")]);
    let told = settle(Given::answers(vec![both, reject(0)]).on_error(Some(OnError::Retry))).await;
    assert_eq!(told.offsets(), [&[0, 1, 2][..], &[1]]);
    assert_eq!(told.dead(), [(0, 1, FailureKind::Reject), (1, 2, FailureKind::Reject)]);
}

#[tokio::test(start_paused = true)]
async fn s82_skip_gives_up_and_counts_and_abort_starts_over() {
    for answer in [retry(1), reject(1)] {
        let told = settle(Given::answers(vec![answer.clone()]).on_error(Some(OnError::Skip))).await;
        assert!(told.stopped.is_none() && told.letters.is_empty());
        assert_eq!((told.calls.len(), told.counts()), (1, [2, 1, 0]));
        let told = settle(Given::answers(vec![answer]).on_error(Some(OnError::Abort))).await;
        let Some(Stop::Abort(Abort::Destination, fault)) = told.stopped else { panic!("{:?}", told.stopped) };
        assert!(fault.message.contains("`http/hook`"), "{fault}");
        assert_eq!((told.calls.len(), told.letters.len()), (1, 0));
    }
}

/// S79, S82: the hook decides of every failure, also of a destination that is unavailable, and `on_error` counts for nothing.
#[tokio::test(start_paused = true)]
async fn s79_the_hook_is_asked_before_on_error() {
    for (kind, answer) in
        [(FailureKind::Retry, retry(1)), (FailureKind::Reject, reject(1)), (FailureKind::Unavailable, unavailable(1))]
    {
        let hook = Arc::new(Hook { action: Action::Skip, asked: Mutex::default() });
        let given = Given::answers(vec![answer.clone()]).on_error(Some(OnError::Abort));
        let told = settle(Given { collector: Some(hook.clone()), ..given }).await;
        assert_eq!((told.counts(), hook.asked.lock().unwrap().clone()), ([2, 1, 0], vec![(kind, 1)]));
        // A hook that answers with a wait is as patient as an endpoint that asks for one.
        let wait = Action::Backpressure(Duration::from_secs(3));
        let hook = Arc::new(Hook { action: wait, asked: Mutex::default() });
        let again = Ok(vec![Failure { index: 0, ..answer.clone().unwrap().remove(0) }]);
        let given = Given::answers(vec![answer, again]);
        let told = settle(Given { collector: Some(hook.clone()), max_retries: 0, ..given }).await;
        assert_eq!((told.counts(), told.times()), ([3, 0, 0], vec![0, 3000, 6000]));
        assert_eq!(hook.asked.lock().unwrap().clone(), [(kind, 1), (kind, 1)]);
    }
}

/// S77: a call ends in time, which a sink that bounds its own calls may move. A destination that never answers is unavailable, and
/// costs no row (S79b).
#[tokio::test(start_paused = true)]
async fn s77_a_call_has_a_deadline_and_a_sink_may_ask_for_patience() {
    let slow = |patience| Given {
        description: Description { patience: Duration::from_secs(patience), ..Description::direct(false) },
        pause: Duration::from_secs(100),
        ..Given::answers(Vec::new())
    };
    let told = settle(slow(0)).await;
    let Some(Stop::Abort(Abort::Destination, fault)) = &told.stopped else { panic!("{:?}", told.stopped) };
    assert!(fault.message.contains("did not answer within 30 s"), "{fault}");
    assert_eq!(told.counts(), [0, 0, 0]);
    let told = settle(slow(101)).await;
    assert_eq!((told.lasted, told.counts()), (100_000, [3, 0, 0]));
}
