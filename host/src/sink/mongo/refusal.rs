//! What the driver's errors mean: for a row, or for the whole destination.

use mongodb::error::{
    Error, ErrorKind, RETRYABLE_WRITE_ERROR, SYSTEM_OVERLOADED_ERROR, TRANSIENT_TRANSACTION_ERROR, WriteFailure,
};

use super::address::Address;
use crate::model::Fault;
use crate::sink::TOO_LARGE;

/// A unique index has the value already.
pub(super) const DUPLICATE: &[i32] = &[11000, 11001, 12582];

/// Codes by which the server speaks of itself, and not of a document.
const AWAY: &[i32] = &[
    6,     // HostUnreachable
    7,     // HostNotFound
    18,    // AuthenticationFailed
    24,    // LockTimeout
    46,    // LockBusy
    50,    // MaxTimeMSExpired
    63,    // StaleShardVersion
    64,    // WriteConcernFailed
    79,    // UnknownReplWriteConcern
    89,    // NetworkTimeout
    91,    // ShutdownInProgress
    100,   // UnsatisfiableWriteConcern
    112,   // WriteConflict
    133,   // FailedToSatisfyReadPreference
    134,   // ReadConcernMajorityNotAvailableYet
    150,   // StaleEpoch
    189,   // PrimarySteppedDown
    202,   // NetworkInterfaceExceededTimeLimit
    262,   // ExceededTimeLimit
    314,   // ObjectIsBusy
    317,   // ConnectionPoolExpired
    391,   // ReauthenticationRequired
    462,   // IngressRequestRateLimitExceeded
    8000,  // Atlas: over the quota
    9001,  // SocketException
    10058, // NotPrimary, from servers before it had a name
    10107, // NotWritablePrimary
    11600, // InterruptedAtShutdown
    11601, // Interrupted
    11602, // InterruptedDueToReplStateChange
    13388, // StaleConfig
    13435, // NotPrimaryNoSecondaryOk
    13436, // NotPrimaryOrSecondary
    14031, // OutOfDiskSpace
];

/// Codes by which it speaks of the collection: they hold for every row for it.
const COLLECTION: &[i32] = &[
    13,  // Unauthorized
    73,  // InvalidNamespace
    166, // CommandNotSupportedOnView
];

/// Codes by which it finds a document too large.
const LARGE: &[i32] = &[10334, 17419, 17420];

const UNAUTHORIZED: i32 = 13;
/// What [`UNAUTHORIZED`] says when nobody is logged in, which no row is to blame for.
const NO_LOGIN: &str = "requires authentication";

/// What an error means.
#[derive(Debug)]
pub(super) enum Refusal {
    /// This row never will be written.
    Row(String),
    /// No row for this collection will be written.
    Collection(String),
    /// The destination cannot be reached or takes no writes.
    Away(Fault),
}

/// The error's code, where a server gave it one.
pub(super) fn code(error: &Error) -> Option<i32> {
    match &*error.kind {
        ErrorKind::Command(error) => Some(error.code),
        ErrorKind::Write(WriteFailure::WriteError(error)) => Some(error.code),
        ErrorKind::Write(WriteFailure::WriteConcernError(error)) => Some(error.code),
        _ => None,
    }
}

/// The error in words: the driver's own would show the server's whole answer.
pub(super) fn words(error: &Error) -> String {
    match &*error.kind {
        ErrorKind::Command(error) => said(error.code, &error.code_name, &error.message),
        ErrorKind::Write(WriteFailure::WriteError(error)) => {
            said(error.code, error.code_name.as_deref().unwrap_or_default(), &error.message)
        }
        ErrorKind::Write(WriteFailure::WriteConcernError(error)) => said(error.code, &error.code_name, &error.message),
        kind => kind.to_string(),
    }
}

/// The server's words for a code.
pub(super) fn said(code: i32, name: &str, message: &str) -> String {
    match name {
        "" => format!("{message} ({code})"),
        name => format!("{message} ({code} {name})"),
    }
}

/// What a refusal of one document means.
pub(super) fn of_code(address: &Address, code: i32, words: &str) -> Refusal {
    let words = address.veiled(words);
    if AWAY.contains(&code) || (code == UNAUTHORIZED && words.contains(NO_LOGIN)) {
        return Refusal::Away(
            Fault::destination(format!("`{}` takes no writes for now", address.place())).because(words),
        );
    }
    if COLLECTION.contains(&code) {
        return Refusal::Collection(words);
    }
    if LARGE.contains(&code) {
        return Refusal::Row(format!("{TOO_LARGE}: {words}"));
    }
    Refusal::Row(words)
}

/// What an error of a whole command means.
pub(super) fn of(address: &Address, error: &Error) -> Refusal {
    let away = || Refusal::Away(address.away("cannot be written to", error));
    let passing = [RETRYABLE_WRITE_ERROR, TRANSIENT_TRANSACTION_ERROR, SYSTEM_OVERLOADED_ERROR];
    if passing.iter().any(|label| error.contains_label(label)) {
        return away();
    }
    match &*error.kind {
        // The row is written, but not on as many servers as wanted; writing it again asks again.
        ErrorKind::Write(WriteFailure::WriteConcernError(_)) => away(),
        ErrorKind::Command(_) | ErrorKind::Write(_) => of_code(address, code(error).unwrap_or_default(), &words(error)),
        // The driver itself finds something wrong with the document.
        ErrorKind::InvalidArgument { .. } | ErrorKind::Bson(_) => Refusal::Row(address.veiled(&words(error))),
        _ => away(),
    }
}

/// The index that has the value already, as the server's message names it: ``… index: NAME dup key: …``, before the
/// namespace and `.$` in front of it on old servers.
pub(super) fn index(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once("index: ")?;
    let name = rest.split_once(" dup key").map_or(rest, |(name, _)| name).trim();
    Some(name.rsplit_once(".$").map_or(name, |(_, name)| name)).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_violated_index_is_named() {
        let message = "E11000 duplicate key error collection: app.c index: _id_ dup key: { _id: ObjectId('65') }";
        assert_eq!(index(message), Some("_id_"));
        assert_eq!(index("E11000 duplicate key error index: app.c.$email_1 dup key: { : \"a\" }"), Some("email_1"));
        assert_eq!(index("E11000 duplicate key error"), None);
    }
}
