//! The thread that asks the brokers on the polling thread's behalf, so that this one never waits for them.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::BaseConsumer;

use super::context::{Bell, Context};
use super::inquiry::{Found, Inquiry, Rules};
use super::offsets::QUESTION_TIMEOUT;
use super::probe::is_missing;
use super::truncation;
use crate::model::{Fault, Offset, TopicPartition};

/// Questions that may wait for the thread; the polling thread keeps what is beyond them and asks later.
const QUESTIONS: usize = 8;
/// Answers that may wait for the polling thread, which takes them at each turn.
const ANSWERS: usize = 64;
/// One wait for a leader's answer, between two looks at new questions.
const ANSWER_WAIT: Duration = Duration::from_millis(20);

/// What is to be found out.
pub(super) enum Question {
    /// Where these partitions start.
    Starts { round: u64, partitions: Vec<TopicPartition> },
    /// Which of these topics are not there.
    Missing(Vec<String>),
    /// Why a log does not have the offset to read next, which has this leader epoch below it.
    Missed { partition: TopicPartition, wanted: Offset, epoch: i32 },
}

/// What was found out.
pub(super) enum Answer {
    /// The question about starts is with the leaders: the next one may be asked.
    Asked,
    Starts(Vec<Found>),
    Missing(Vec<String>),
    /// Nothing can be asked.
    Failed(Fault),
    /// The partition cannot be read on.
    Missed(TopicPartition, Fault),
}

/// The polling thread's side.
pub(super) struct Resolver {
    questions: SyncSender<Question>,
    answers: Receiver<Answer>,
    thread: std::thread::JoinHandle<()>,
}

impl Resolver {
    pub(super) fn start(
        consumer: Arc<BaseConsumer<Context>>,
        rules: Rules,
        client: ClientConfig,
        bell: Arc<Bell>,
    ) -> Result<Self, Fault> {
        let (questions, asked) = sync_channel(QUESTIONS);
        let (answered, answers) = sync_channel(ANSWERS);
        let thread = std::thread::Builder::new()
            .name("kafka-resolve".into())
            .spawn(move || match Inquiry::new(consumer, rules) {
                Ok(inquiry) => Work { inquiry, client, questions: asked, answers: answered, bell }.run(),
                Err(fault) => {
                    let _ = answered.send(Answer::Failed(fault));
                    bell.ring();
                }
            })
            .map_err(|error| Fault::host("the thread that asks the brokers cannot be started").because(error))?;
        Ok(Self { questions, answers, thread })
    }

    /// Asks, or gives the question back when too many wait.
    pub(super) fn ask(&self, question: Question) -> Result<(), Question> {
        self.questions.try_send(question).map_err(|error| match error {
            TrySendError::Full(question) | TrySendError::Disconnected(question) => question,
        })
    }

    pub(super) fn answer(&self) -> Option<Answer> {
        self.answers.try_recv().ok()
    }

    /// Ends the thread once the question that it may be busy with is answered, and returns what tells whether it has ended.
    pub(super) fn end(self) -> std::thread::JoinHandle<()> {
        self.thread
    }
}

/// The thread's side.
struct Work {
    inquiry: Inquiry,
    /// For questions of a client of its own.
    client: ClientConfig,
    questions: Receiver<Question>,
    answers: SyncSender<Answer>,
    bell: Arc<Bell>,
}

impl Work {
    fn run(mut self) {
        loop {
            let question = if self.inquiry.is_idle() {
                self.questions.recv().map_err(|_| TryRecvError::Disconnected)
            } else {
                self.questions.try_recv()
            };
            let went = match question {
                Ok(question) => self.take_up(question),
                Err(TryRecvError::Empty) => {
                    let found = self.inquiry.wait(ANSWER_WAIT);
                    found.is_empty() || self.say(Answer::Starts(found))
                }
                Err(TryRecvError::Disconnected) => false,
            };
            if !went {
                return;
            }
        }
    }

    /// `false`: nobody wants to know any more.
    fn take_up(&mut self, question: Question) -> bool {
        let consumer = self.inquiry.consumer();
        match question {
            Question::Starts { round, partitions } => {
                let found = self.inquiry.ask(round, partitions);
                (found.is_empty() || self.say(Answer::Starts(found))) && self.say(Answer::Asked)
            }
            Question::Missing(mut topics) => {
                topics.retain(|topic| is_missing(consumer, topic, QUESTION_TIMEOUT));
                self.say(Answer::Missing(topics))
            }
            Question::Missed { partition, wanted, epoch } => {
                let fault = truncation::explain(&self.client, &partition, (wanted, epoch));
                self.say(Answer::Missed(partition, fault))
            }
        }
    }

    fn say(&self, answer: Answer) -> bool {
        let heard = self.answers.send(answer).is_ok();
        self.bell.ring();
        heard
    }
}
