use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

/// Proves that files can be made in the directory.
pub fn probe(directory: &Path, slot: u32) -> io::Result<()> {
    let path = directory.join(format!(".tidegate-csv-probe-{slot}"));
    File::create(&path)?;
    fs::remove_file(&path)
}

/// A file at whose end whole appends are written, or nothing.
pub struct Appending {
    file: File,
    length: u64,
}

impl Appending {
    /// Opens the file and makes it if need be. With `repair`, takes back a row that a crash has cut off: its flush never
    /// returned, so its record comes again.
    pub fn open(path: &Path, repair: bool) -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut length = file.seek(SeekFrom::End(0))?;
        if repair && length > 0 {
            let whole = length_of_whole_rows(&mut file, length)?;
            if whole < length {
                file.set_len(whole)?;
                length = whole;
            }
        }
        Ok(Self { file, length })
    }

    /// Whether the file begins with these bytes.
    pub fn begins_with(&mut self, bytes: &[u8]) -> io::Result<bool> {
        let mut start = Vec::with_capacity(bytes.len());
        self.file.seek(SeekFrom::Start(0))?;
        (&self.file).take(bytes.len() as u64).read_to_end(&mut start)?;
        Ok(start == bytes)
    }

    /// Whether nothing is in the file yet.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Appends all of `text` and syncs it, or leaves the file as it was.
    pub fn append(&mut self, text: &[u8]) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(self.length))?;
        let written = self.file.write_all(text).and_then(|()| self.file.sync_all());
        if written.is_err() {
            // The first error is the one to report; if this fails as well, the next instance repairs the file.
            let _ = self.file.set_len(self.length);
        }
        written
    }
}

/// Where the last whole row ends. A file that ends with a line's end is whole; the rest is read only if it does not,
/// because a line's end inside quotes ends no row.
fn length_of_whole_rows(file: &mut File, length: u64) -> io::Result<u64> {
    let mut last = [0];
    file.seek(SeekFrom::Start(length - 1))?;
    file.read_exact(&mut last)?;
    if last == [b'\n'] {
        return Ok(length);
    }
    file.seek(SeekFrom::Start(0))?;
    let (mut whole, mut quoted) = (0, false);
    for (byte, at) in BufReader::with_capacity(1 << 16, file).bytes().zip(1..) {
        match byte? {
            b'"' => quoted = !quoted,
            b'\n' if !quoted => whole = at,
            _ => {}
        }
    }
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_a_directory(test: impl FnOnce(&Path) -> io::Result<()>) {
        let result = tempfile::tempdir().and_then(|directory| test(directory.path()));
        assert!(result.is_ok(), "{result:?}");
    }

    #[test]
    fn appends_follow_each_other_and_a_new_file_is_empty() {
        in_a_directory(|directory| {
            let path = directory.join("rows.csv");
            let mut file = Appending::open(&path, true)?;
            assert!(file.is_empty());
            file.append(b"a\n")?;
            let mut file = Appending::open(&path, false)?;
            assert!(!file.is_empty());
            assert!(file.begins_with(b"a\n")? && !file.begins_with(b"a\nb")?);
            file.append(b"b\n")?;
            assert_eq!(fs::read_to_string(&path)?, "a\nb\n");
            Ok(())
        });
    }

    #[test]
    fn a_row_that_a_crash_cut_off_is_taken_back() {
        for (before, after) in [
            ("k,v\n1,\"a\nb\"\n2,cut", "k,v\n1,\"a\nb\"\n"),
            ("k,v\n1,\"a\nb", "k,v\n"),
            ("k,v\n1,a\n", "k,v\n1,a\n"),
            ("k,", ""),
        ] {
            in_a_directory(|directory| {
                let path = directory.join("rows.csv");
                fs::write(&path, before)?;
                let file = Appending::open(&path, true)?;
                assert_eq!(file.is_empty(), after.is_empty());
                assert_eq!(fs::read_to_string(&path)?, after);
                Ok(())
            });
        }
    }

    #[test]
    fn a_probe_leaves_nothing_and_says_when_there_is_no_directory() {
        in_a_directory(|directory| {
            probe(directory, 0)?;
            assert_eq!(fs::read_dir(directory)?.count(), 0);
            assert!(probe(&directory.join("none"), 0).is_err_and(|error| error.kind() == io::ErrorKind::NotFound));
            Ok(())
        });
    }
}
