//! What the driver's errors mean: for a row, for a collection, or for the whole destination.

use std::io;

use mongodb::error::{
    Error, ErrorKind, RETRYABLE_WRITE_ERROR, SYSTEM_OVERLOADED_ERROR, TRANSIENT_TRANSACTION_ERROR, WriteFailure,
};

use super::address::Address;
use crate::model::{CallError, Fault};
use crate::sink::TOO_LARGE;

/// A unique index has the value already.
pub(super) const DUPLICATE: &[i32] = &[11000, 11001, 12582];

/// Codes by which the server speaks of itself, and not of a document.
const UNAVAILABLE: &[i32] = &[
    6,          // HostUnreachable
    7,          // HostNotFound
    11,         // UserNotFound
    18,         // AuthenticationFailed
    24,         // LockTimeout
    42,         // LogWriteFailed
    46,         // LockBusy
    59,         // CommandNotFound, as of a gateway
    63,         // StaleShardVersion
    64,         // WriteConcernTimeout
    70,         // ShardNotFound
    71,         // ReplicaSetNotFound
    74,         // NodeNotFound
    76,         // NoReplicationEnabled
    79,         // UnknownReplWriteConcern
    83,         // RemoteResultsUnavailable
    89,         // NetworkTimeout
    90,         // CallbackCanceled
    91,         // ShutdownInProgress
    94,         // NotYetInitialized
    100,        // UnsatisfiableWriteConcern
    101,        // OutdatedClient
    107,        // LockFailed
    109,        // ConfigurationInProgress
    112,        // WriteConflict
    115,        // CommandNotSupported
    117,        // ConflictingOperationInProgress
    133,        // FailedToSatisfyReadPreference
    134,        // ReadConcernMajorityNotAvailableYet
    140,        // InvalidSSLConfiguration
    141,        // SSLHandshakeFailed
    145,        // PooledConnectionsDropped
    149,        // NoConfigPrimary
    150,        // StaleEpoch
    172,        // TransportSessionClosed
    175,        // QueryPlanKilled
    176,        // FileOpenFailed
    188,        // IncompatibleServerVersion
    189,        // PrimarySteppedDown
    194,        // BalancerInterrupted
    199,        // ReplicaSetMonitorRemoved
    203,        // ShardingStateNotInitialized
    204,        // TimeProofMismatch
    205,        // ClusterTimeFailsRateLimiter
    206,        // NoSuchSession
    209,        // StaleClusterTime
    210,        // CannotVerifyAndSignLogicalTime
    211,        // KeyNotFound
    214,        // AuthenticationRestrictionUnmet
    215,        // DatabaseDropPending
    216,        // ElectionInProgress
    230,        // DNSHostNotFound
    231,        // DNSProtocolError
    237,        // CursorKilled
    239,        // SnapshotTooOld
    240,        // DNSRecordTypeMismatch
    246,        // SnapshotUnavailable
    249,        // StaleDbVersion
    250,        // StaleChunkHistory
    261,        // TooManyLogicalSessions
    264,        // TooManyFilesOpen
    267,        // PreparedTransactionInProgress
    272,        // MigrationConflict
    279,        // ClientDisconnect
    281,        // TransactionCoordinatorSteppingDown
    282,        // TransactionCoordinatorReachedAbortDecision
    299,        // OCSPCertificateStatusRevoked
    302,        // OCSPCertificateStatusUnknown
    303,        // SplitHorizonChange
    308,        // CurrentConfigNotCommittedYet
    310,        // PeriodicJobIsStopped
    314,        // ObjectIsBusy
    317,        // ConnectionPoolExpired
    319,        // MovePrimaryInProgress
    322,        // APIVersionError
    323,        // APIStrictError
    324,        // APIDeprecationError
    333,        // ServiceExecutorInShutdown
    334,        // MechanismUnavailable
    336,        // TimeseriesBucketCleared
    338,        // ReshardCollectionInProgress
    340,        // ReshardCollectionCommitted
    341,        // ReshardCollectionAborted
    342,        // ReshardingCriticalSectionTimeout
    343,        // ShardCannotRefreshDueToLocksHeld
    347,        // APIMismatchError
    352,        // UnsupportedOpQueryCommand
    354,        // LoadBalancerSupportMismatch
    355,        // InterruptedDueToStorageChange
    358,        // InternalTransactionNotSupported
    360,        // PlacementVersionRefreshCanceled
    363,        // RetryableTransactionInProgress
    365,        // TemporarilyUnavailable
    371,        // UserWritesBlocked
    372,        // CloseConnectionForShutdownCommand
    379,        // DatabaseMetadataRefreshCanceled
    384,        // ConnectionError
    391,        // ReauthenticationRequired
    392,        // InvalidJWT
    398,        // StreamTerminated
    402,        // ResourceExhausted
    404,        // LDAPRoleAcquisitionError
    406,        // MigrationBlockingOperationCoordinatorCleaningUp
    407,        // PooledConnectionAcquisitionExceededTimeLimit
    410,        // TimeseriesBucketFrozen
    412,        // UpdatesStillPending
    414,        // AddOrRemoveShardInProgress
    433,        // AdmissionQueueOverflow
    445,        // DatabaseMetadataRefreshCanceledDueToFCVTransition
    449,        // RateLimitExceeded
    450,        // PooledConnectionAcquisitionRejected
    453,        // InterruptedDueToReshardingCriticalSection
    462,        // IngressRequestRateLimitExceeded
    8000,       // Atlas: over the quota
    9001,       // SocketException
    10058,      // NotPrimary, from servers before it had a name
    10107,      // NotWritablePrimary
    11600,      // InterruptedAtShutdown
    11601,      // Interrupted
    11602,      // InterruptedDueToReplStateChange
    12586,      // BackgroundOperationInProgressForDatabase
    12587,      // BackgroundOperationInProgressForNamespace
    13388,      // StaleConfig
    13435,      // NotPrimaryNoSecondaryOk
    13436,      // NotPrimaryOrSecondary
    14031,      // OutOfDiskSpace
    46841,      // ClientMarkedKilled
    50915,      // BackupCursorOpenConflictWithCheckpoint
    56846,      // ConfigServerUnreachable
    57986,      // RetryableInternalTransactionNotSupported
    91331,      // RetriableRemoteCommandFailure
    10_045_600, // InterruptedDueToFCVChange
];

/// Codes of a command that ran out of time, which one for fewer documents may not.
const TIMEOUT: &[i32] = &[
    50,  // MaxTimeMSExpired
    202, // NetworkInterfaceExceededTimeLimit
    262, // ExceededTimeLimit
    290, // TransactionExceededLifetimeLimitSeconds
];

/// Codes of which a document as well as the server may be the cause.
const UNKNOWN: &[i32] = &[
    1,     // InternalError
    8,     // UnknownError
    20,    // IllegalOperation, also of every command that a storage cannot carry out
    43,    // CursorNotFound
    65,    // MultipleErrorsOccurred
    72,    // InvalidOptions
    77,    // OperationIncomplete
    78,    // CommandResultSchemaViolation
    96,    // OperationFailed
    125,   // CommandFailed
    146,   // ExceededMemoryLimit
    208,   // TooManyLocks
    235,   // InternalErrorNotSupported
    238,   // NotImplemented
    245,   // BrokenPromise
    251,   // NoSuchTransaction
    257,   // TransactionTooLarge
    292,   // QueryExceededMemoryLimitNoDiskUseAllowed
    301,   // DataCorruptionDetected
    388,   // TransactionTooLargeForCache
    409,   // TimeseriesBucketCompressionFailed
    40414, // IDLFailedToParse, of a command or a part of it that the server does not know
    40415, // IDLUnknownField
];

/// Codes by which it speaks of the collection: they hold for every row for it.
const COLLECTION: &[i32] = &[
    13,  // Unauthorized
    26,  // NamespaceNotFound
    73,  // InvalidNamespace
    118, // NamespaceNotSharded
    165, // ViewDepthLimitExceeded
    166, // CommandNotSupportedOnView
    167, // OptionNotSupportedOnView
    227, // CannotImplicitlyCreateCollection
    242, // CannotCreateCollection
];

/// Codes by which it finds a document too large.
const LARGE: &[i32] = &[116, 10334, 17419, 17420];

const UNAUTHORIZED: i32 = 13;
/// What [`UNAUTHORIZED`] says when nobody is logged in, which no row is to blame for.
const NO_LOGIN: &str = "requires authentication";

/// What a code means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Row,
    TooLarge,
    Collection,
    Unavailable,
    Timeout,
    Unknown,
}

/// `in_configured`: it is about the collection that is configured, whose privileges are the operator's to give back.
/// Another one was
/// chosen by the row.
fn classify(code: i32, words: &str, in_configured: bool) -> Class {
    if code == UNAUTHORIZED && (in_configured || words.contains(NO_LOGIN)) {
        return Class::Unavailable;
    }
    [
        (UNAVAILABLE, Class::Unavailable),
        (TIMEOUT, Class::Timeout),
        (UNKNOWN, Class::Unknown),
        (COLLECTION, Class::Collection),
        (LARGE, Class::TooLarge),
    ]
    .into_iter()
    .find(|(codes, _)| codes.contains(&code))
    .map_or(Class::Row, |(_, class)| class)
}

/// What an error means.
#[derive(Debug)]
pub(super) enum Refusal {
    /// This row never will be written.
    Row(String),
    /// No row for this collection will be written.
    Collection(String),
    /// The destination cannot be reached or takes no writes.
    Unavailable(Fault),
    /// It did not answer in time; fewer rows may fit.
    Timeout(Fault),
    /// A row or the destination may be the cause.
    Unknown(Fault),
}

impl Refusal {
    /// What becomes of the rows of a call that failed like this as a whole: rejected for this reason, if they are.
    pub(super) fn call(self) -> Result<String, CallError> {
        match self {
            Self::Row(reason) | Self::Collection(reason) => Ok(reason),
            Self::Unavailable(fault) => Err(CallError::Unavailable(fault)),
            Self::Timeout(fault) => Err(CallError::Timeout(fault)),
            Self::Unknown(fault) => Err(CallError::Unknown(fault)),
        }
    }
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

/// What a refusal of one document for this collection means.
pub(super) fn of_code(address: &Address, collection: &str, code: i32, words: &str) -> Refusal {
    let class = classify(code, words, address.is_configured(collection));
    let words = address.veiled(words);
    let fault = |what: &str| Fault::destination(format!("`{}` {what}", address.place())).because(&words);
    match class {
        Class::Row => Refusal::Row(words),
        Class::TooLarge => Refusal::Row(format!("{TOO_LARGE}: {words}")),
        Class::Collection => Refusal::Collection(words),
        Class::Unavailable => Refusal::Unavailable(fault("takes no writes for now")),
        Class::Timeout => Refusal::Timeout(fault("did not write in time")),
        Class::Unknown => Refusal::Unknown(fault("could not write")),
    }
}

/// What an error of a whole command means.
pub(super) fn of(address: &Address, collection: &str, error: &Error) -> Refusal {
    let unavailable = || Refusal::Unavailable(address.unavailable("cannot be written to", error));
    let passing = [RETRYABLE_WRITE_ERROR, TRANSIENT_TRANSACTION_ERROR, SYSTEM_OVERLOADED_ERROR];
    if passing.iter().any(|label| error.contains_label(label)) {
        return unavailable();
    }
    match &*error.kind {
        // The row is written, but not on as many servers as wanted; writing it again asks again.
        ErrorKind::Write(WriteFailure::WriteConcernError(_)) => unavailable(),
        ErrorKind::Command(_) | ErrorKind::Write(_) => {
            of_code(address, collection, code(error).unwrap_or_default(), &words(error))
        }
        // The driver itself finds something wrong with the document.
        ErrorKind::InvalidArgument { .. } | ErrorKind::Bson(_) => Refusal::Row(address.veiled(&words(error))),
        ErrorKind::Io(cause) if cause.kind() == io::ErrorKind::TimedOut => {
            Refusal::Timeout(address.unavailable("did not answer in time", error))
        }
        // A connection that broke off, or an answer that nobody understands.
        ErrorKind::Io(_) | ErrorKind::Internal { .. } | ErrorKind::InvalidResponse { .. } => {
            Refusal::Unknown(address.unavailable("broke off", error))
        }
        _ => unavailable(),
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

    /// S79a, S79b: every code that is not the document's.
    #[test]
    fn s79a_codes_are_classified() {
        for (codes, class) in [
            (
                &[
                    6, 18, 24, 46, 59, 64, 91, 100, 112, 115, 175, 189, 211, 214, 237, 322, 371, 391, 402, 433, 450,
                    453, 8000, 9001, 10107, 11600, 14031, 46841, 91331,
                ][..],
                Class::Unavailable,
            ),
            (&[50, 202, 262, 290], Class::Timeout),
            (&[1, 8, 20, 72, 96, 125, 146, 208, 238, 301, 40415], Class::Unknown),
            (&[13, 26, 73, 166, 227, 242], Class::Collection),
            (&[116, 10334, 17419, 17420], Class::TooLarge),
            // BadValue, FailedToParse, TypeMismatch, Overflow, DollarPrefixedFieldName, ShardKeyNotFound,
            // ImmutableField,
            // DocumentValidationFailure, CannotBuildIndexKeys, duplicate key, and a code that nobody knows.
            (&[2, 9, 14, 15, 52, 61, 66, 121, 201, 11000, 77_777], Class::Row),
        ] {
            for code in codes {
                assert_eq!(classify(*code, "", false), class, "{code}");
            }
        }
        let lists = [UNAVAILABLE, TIMEOUT, UNKNOWN, COLLECTION, LARGE, DUPLICATE].concat();
        let once: std::collections::BTreeSet<_> = lists.iter().collect();
        assert_eq!(once.len(), lists.len(), "a code stands in one list");
    }

    /// A missing privilege is the operator's where he named the collection, and where nobody is logged in.
    #[test]
    fn s79a_a_missing_privilege_is_the_rows_where_the_row_named_the_collection() {
        assert_eq!(classify(UNAUTHORIZED, "not authorized on app", false), Class::Collection);
        assert_eq!(classify(UNAUTHORIZED, "not authorized on app", true), Class::Unavailable);
        assert_eq!(classify(UNAUTHORIZED, "command insert requires authentication", false), Class::Unavailable);
    }

    #[test]
    fn a_violated_index_is_named() {
        let message = "E11000 duplicate key error collection: app.c index: _id_ dup key: { _id: ObjectId('65') }";
        assert_eq!(index(message), Some("_id_"));
        assert_eq!(index("E11000 duplicate key error index: app.c.$email_1 dup key: { : \"a\" }"), Some("email_1"));
        assert_eq!(index("E11000 duplicate key error"), None);
    }
}
