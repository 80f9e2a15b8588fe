//! What the pipeline wants of a worker, and how that reaches a step under way.

use std::time::Duration;

use tokio::sync::watch;

use super::shared::millis;
use crate::clock::{Clock, Millis};

/// What the pipeline wants of a worker. Only ever goes from serving towards an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Read, deliver, commit.
    Serve,
    /// Make a last cut and end; what is not settled at `deadline` is left to the next owner (S45, S54).
    Close {
        /// On the pipeline's clock.
        deadline: Millis,
        /// Whether the watermark is committed when the time is up (S55) or not (S47).
        commit_late: bool,
    },
    /// The partition is not ours any more: no commit and no further write (S48).
    Drop,
}

impl Order {
    /// Whether the partition is another member's from now on, and not given up by a stop.
    pub fn is_leaving(self) -> bool {
        matches!(self, Self::Drop | Self::Close { commit_late: false, .. })
    }

    /// The order that holds when `next` comes on top of this one: a loss overtakes everything, and of two ends the nearer
    /// deadline stands, or a revocation during a stop would have to wait for the drain limit (S46).
    pub fn and(self, next: Self) -> Self {
        match (self, next) {
            (Self::Serve, next) => next,
            (Self::Drop, _) | (_, Self::Drop) => Self::Drop,
            (end @ Self::Close { .. }, Self::Serve) => end,
            (Self::Close { deadline, commit_late }, Self::Close { deadline: other, commit_late: also }) => {
                Self::Close { deadline: deadline.min(other), commit_late: commit_late && also }
            }
        }
    }
}

/// Why a step under way is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupt {
    /// The order changed, and the step was only a wait.
    Look,
    /// The time for a clean end is up.
    TimeIsUp {
        /// See [`Order::Close`].
        commit_late: bool,
    },
    /// The partition is not ours any more, or nobody is left who could say.
    Dropped,
}

/// Returns when the order changes in a way that matters to a step under way.
pub async fn interrupted<C: Clock>(
    orders: &mut watch::Receiver<Order>,
    seen: Order,
    may_look: bool,
    floor: Duration,
    clock: &C,
) -> Interrupt {
    let mut order = seen;
    let begun = clock.now();
    loop {
        match order {
            Order::Drop => return Interrupt::Dropped,
            Order::Close { .. } if may_look && seen == Order::Serve => return Interrupt::Look,
            Order::Close { deadline, commit_late } => {
                let deadline = deadline.max(begun + millis(floor));
                let left = Duration::from_millis(deadline.saturating_sub(clock.now()));
                tokio::select! {
                    biased;
                    changed = orders.changed() => {
                        if changed.is_err() {
                            return Interrupt::Dropped;
                        }
                    }
                    () = clock.sleep(left) => return Interrupt::TimeIsUp { commit_late },
                }
            }
            Order::Serve => {
                if orders.changed().await.is_err() {
                    return Interrupt::Dropped;
                }
            }
        }
        let next = *orders.borrow();
        order = order.and(next);
    }
}

#[cfg(test)]
mod tests {
    use super::Order;

    /// S46, S48, S55: of two ends the nearer deadline stands, nothing is committed late once the partition is wanted by
    /// others, and nothing undoes a loss.
    #[test]
    fn s46_of_two_orders_the_stricter_stands() {
        let close = |deadline, commit_late| Order::Close { deadline, commit_late };
        assert_eq!(close(30, true).and(close(10, false)), close(10, false));
        assert_eq!(close(1, true).and(close(10, false)), close(1, false));
        assert_eq!(close(10, false).and(Order::Drop), Order::Drop);
        assert_eq!(Order::Drop.and(close(10, false)), Order::Drop);
        assert_eq!(Order::Serve.and(close(10, true)), close(10, true));
    }
}
