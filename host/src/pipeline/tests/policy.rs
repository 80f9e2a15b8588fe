//! The tables that decide.

use super::*;
use crate::pipeline::policy::{
    Disposition, RowDisposition, Stage, call_table, chosen, disposition, row_disposition, row_table,
};

/// S37, S44, S79a, S79b: an outage is never a reason for a dead letter, in no stage, and backpressure neither.
#[test]
fn s79a_no_stage_gives_rows_up_for_an_outage() {
    for stage in Stage::ALL {
        let fault = || Fault::destination("refused");
        let unavailable = disposition(stage, CallError::Unavailable(fault()));
        assert_eq!(unavailable, Disposition::WaitForDestination(fault()), "{stage:?}");
        let asked = disposition(stage, CallError::Backpressure(Duration::from_secs(1)));
        assert!(
            matches!(
                asked,
                Disposition::WaitAndRepeat(_) | Disposition::FlushAndRepeat(_) | Disposition::RewindAndWait(_)
            ),
            "{stage:?}: {asked:?}"
        );
        assert!(matches!(disposition(stage, CallError::Fatal(fault())), Disposition::Stop(_)));
    }
    for attempts_left in [true, false] {
        let action = chosen(None, FailureKind::Unavailable);
        let row = row_disposition(FailureKind::Unavailable, action, attempts_left);
        assert_eq!(row, RowDisposition::WaitForDestination);
    }
}

/// S84: a hook that has no opinion leaves the choice to `on_error`, and nobody chooses about rows that were not tried.
#[test]
fn s79c_rows_that_were_not_tried_are_sent_again_whatever_was_chosen() {
    for action in [Action::Default, Action::Dlq, Action::Retry, Action::Skip, Action::Abort] {
        assert_eq!(row_disposition(FailureKind::NotTried, action, false), RowDisposition::SendAgain);
        let asked = FailureKind::Backpressure(Duration::from_secs(3));
        assert_eq!(row_disposition(asked, action, false), RowDisposition::Wait(Duration::from_secs(3)));
    }
}

#[test]
fn the_tables_have_a_cell_for_everything() {
    for (table, columns) in [(call_table(), Stage::ALL.len() + 1), (row_table(), 7)] {
        for line in table.lines() {
            assert_eq!(line.matches('|').count(), columns + 1, "{line}");
        }
    }
}
