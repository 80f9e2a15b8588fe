//! The calls in which destinations and plugins fail, each in its own way.

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    Collect,
    /// `deliver` of a direct sink.
    Deliver(usize),
    /// `add` of the buffering sink.
    Add,
    /// `flush` of the buffering sink.
    Flush,
}

/// The buffering sink's index.
pub const BUFFERING: usize = 2;

impl Stage {
    pub const ALL: [Self; 5] = [Self::Collect, Self::Deliver(0), Self::Deliver(1), Self::Add, Self::Flush];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Collect => "collect",
            Self::Deliver(_) => "deliver",
            Self::Add => "add",
            Self::Flush => "flush",
        }
    }

    /// The sink that is called, `None` for the collector.
    pub const fn sink(self) -> Option<usize> {
        match self {
            Self::Collect => None,
            Self::Deliver(sink) => Some(sink),
            Self::Add | Self::Flush => Some(BUFFERING),
        }
    }
}
