//! What an error of the operating system means for the rows (S79a, S79b).

use std::io::{Error, ErrorKind};

/// What an error means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// The path leads to nothing that can be written to.
    Path,
    /// The file system takes nothing for now, or not in this file.
    Unavailable,
    /// Neither is known.
    Unknown,
}

/// Classifies by the error's number, and by its kind where it has none.
pub(super) fn classify(error: &Error) -> Class {
    error.raw_os_error().map_or_else(|| of_kind(error.kind()), of_number)
}

fn of_number(number: i32) -> Class {
    match number {
        // Permissions of the file or of a directory on the way, or a file that nobody may write to.
        libc::EACCES | libc::EPERM => Class::Path,
        libc::ENOENT | libc::ENOTDIR | libc::EISDIR | libc::ELOOP | libc::ENAMETOOLONG => Class::Path,
        // What the file system does not take as a name, leaves the base, or is no file.
        libc::EINVAL | libc::EILSEQ | libc::EXDEV | libc::ENXIO | libc::EOPNOTSUPP => Class::Path,
        // No room, and a file that can grow no more until somebody rotates it.
        libc::ENOSPC | libc::EDQUOT | libc::EROFS | libc::EFBIG => Class::Unavailable,
        // The disk is damaged, gone or taken out.
        libc::EIO | libc::EUCLEAN | libc::ENODEV | libc::ENOMEDIUM | libc::ESTALE => Class::Unavailable,
        // A network's or a user's file system that does not answer.
        libc::ETIMEDOUT | libc::ENOTCONN | libc::ECONNREFUSED | libc::ECONNRESET | libc::ECONNABORTED => {
            Class::Unavailable
        }
        libc::EHOSTDOWN | libc::EHOSTUNREACH | libc::ENETDOWN | libc::ENETUNREACH | libc::ESHUTDOWN => {
            Class::Unavailable
        }
        libc::EREMOTEIO | libc::ENOKEY | libc::EKEYEXPIRED | libc::EKEYREVOKED => Class::Unavailable,
        // Limits of this process or of the machine, and locks.
        libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS => Class::Unavailable,
        libc::EBUSY | libc::ETXTBSY | libc::EAGAIN | libc::EINTR | libc::ENOLCK | libc::EDEADLK => Class::Unavailable,
        _ => Class::Unknown,
    }
}

fn of_kind(kind: ErrorKind) -> Class {
    match kind {
        ErrorKind::PermissionDenied | ErrorKind::NotFound | ErrorKind::NotADirectory => Class::Path,
        ErrorKind::IsADirectory | ErrorKind::InvalidFilename | ErrorKind::InvalidInput => Class::Path,
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::ReadOnlyFilesystem => Class::Unavailable,
        ErrorKind::FileTooLarge | ErrorKind::StaleNetworkFileHandle | ErrorKind::TimedOut => Class::Unavailable,
        ErrorKind::OutOfMemory | ErrorKind::ResourceBusy | ErrorKind::ExecutableFileBusy => Class::Unavailable,
        ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::Deadlock => Class::Unavailable,
        _ => Class::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s79a_errors_of_the_system_are_classified() {
        for (class, numbers) in [
            (
                Class::Path,
                &[
                    libc::EACCES,
                    libc::EPERM,
                    libc::ENOENT,
                    libc::ENOTDIR,
                    libc::EISDIR,
                    libc::ELOOP,
                    libc::ENAMETOOLONG,
                    libc::EINVAL,
                ][..],
            ),
            (
                Class::Unavailable,
                &[
                    libc::ENOSPC,
                    libc::EDQUOT,
                    libc::EROFS,
                    libc::EIO,
                    libc::EMFILE,
                    libc::ENFILE,
                    libc::ENOMEM,
                    libc::ESTALE,
                    libc::ETIMEDOUT,
                    libc::EFBIG,
                    libc::EINTR,
                    libc::ENOTCONN,
                    libc::EBUSY,
                ],
            ),
            (Class::Unknown, &[libc::EBADF, libc::ECHILD, libc::EDOM, 0]),
        ] {
            for number in numbers {
                assert_eq!(classify(&Error::from_raw_os_error(*number)), class, "{number}");
                // A reason that is added takes the number away. What has a kind of its own is the same without.
                let kind = Error::from_raw_os_error(*number).kind();
                let told = classify(&Error::new(kind, "told"));
                assert!(told == class || told == Class::Unknown, "{number}: {told:?}");
            }
        }
        for kind in [ErrorKind::StorageFull, ErrorKind::ReadOnlyFilesystem, ErrorKind::QuotaExceeded] {
            assert_eq!(classify(&Error::new(kind, "told")), Class::Unavailable);
        }
        assert_eq!(classify(&Error::other("the disk took 3 of 4 bytes")), Class::Unknown);
    }
}
