//! The guest's way to files: Wasmtime's own, which keeps it inside the directories it was granted, and a word to the
//! operator when it wanted out or wanted to write where it may only read.

use std::sync::Arc;

use wasmtime::component::{HasData, Linker, Resource};
use wasmtime_wasi::filesystem::{Descriptor, WasiFilesystemCtxView, WasiFilesystemView};
use wasmtime_wasi::p2::bindings::filesystem::types::{
    self, Advice, DescriptorFlags, DescriptorStat, DescriptorType, DirectoryEntry, DirectoryEntryStream, ErrorCode,
    Filesize, Host, HostDescriptor, HostDirectoryEntryStream, MetadataHashValue, NewTimestamp, OpenFlags, PathFlags,
};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, FsError, FsResult};

use crate::plugin::imports::State;
use crate::plugin::report::{Output, printable};

/// Most bytes of a path that a refusal names.
const PATH_BYTES: usize = 300;

/// Puts the watched files in place of Wasmtime's.
pub(crate) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    types::add_to_linker::<State, Files>(linker, |state| {
        let (output, place) = (Arc::clone(&state.output), Arc::clone(&state.place));
        Watched { files: state.filesystem(), output, place }
    })?;
    Ok(())
}

struct Files;

impl HasData for Files {
    type Data<'a> = Watched<'a>;
}

/// One call's view of the files.
pub(crate) struct Watched<'a> {
    files: WasiFilesystemCtxView<'a>,
    output: Arc<Output>,
    place: Arc<str>,
}

impl Watched<'_> {
    /// Tells the operator when the answer is that the guest may not.
    fn told<T>(&self, answer: FsResult<T>, what: &str, path: &str) -> FsResult<T> {
        if let Err(error) = &answer
            && matches!(error.downcast_ref(), Some(ErrorCode::NotPermitted | ErrorCode::Access))
        {
            let path = printable(path, PATH_BYTES);
            self.output.refused(&format!(
                "to {what} `{path}`: it lies outside of what is granted, or may only be read; \
                 `{}.grants.directories` would have to name its directory, with `access: write` to change it",
                self.place
            ));
        }
        answer
    }
}

/// Passes calls on as they are.
macro_rules! passed_on {
    ($(async $name:ident($($argument:ident: $type:ty),*) -> $answer:ty;)*) => {
        $(async fn $name(&mut self, $($argument: $type),*) -> $answer {
            self.files.$name($($argument),*).await
        })*
    };
}

/// Passes calls on, and looks at the answer. The first argument is the directory, the one in brackets the path.
macro_rules! watched {
    ($(async $name:ident[$what:literal, $path:ident]($($argument:ident: $type:ty),*) -> $answer:ty;)*) => {
        $(async fn $name(&mut self, $($argument: $type),*) -> $answer {
            let named = $path.clone();
            let answer = self.files.$name($($argument),*).await;
            self.told(answer, $what, &named)
        })*
    };
}

type Of<T> = Resource<T>;

impl HostDescriptor for Watched<'_> {
    passed_on! {
        async advise(fd: Of<Descriptor>, offset: Filesize, len: Filesize, advice: Advice) -> FsResult<()>;
        async sync_data(fd: Of<Descriptor>) -> FsResult<()>;
        async get_flags(fd: Of<Descriptor>) -> FsResult<DescriptorFlags>;
        async get_type(fd: Of<Descriptor>) -> FsResult<DescriptorType>;
        async read(fd: Of<Descriptor>, len: Filesize, offset: Filesize) -> FsResult<(Vec<u8>, bool)>;
        async read_directory(fd: Of<Descriptor>) -> FsResult<Of<DirectoryEntryStream>>;
        async sync(fd: Of<Descriptor>) -> FsResult<()>;
        async stat(fd: Of<Descriptor>) -> FsResult<DescriptorStat>;
        async is_same_object(a: Of<Descriptor>, b: Of<Descriptor>) -> wasmtime::Result<bool>;
        async metadata_hash(fd: Of<Descriptor>) -> FsResult<MetadataHashValue>;
    }

    watched! {
        async create_directory_at["create", path](fd: Of<Descriptor>, path: String) -> FsResult<()>;
        async stat_at["look at", path](fd: Of<Descriptor>, flags: PathFlags, path: String) -> FsResult<DescriptorStat>;
        async set_times_at["set the times of", path](
            fd: Of<Descriptor>, flags: PathFlags, path: String, atim: NewTimestamp, mtim: NewTimestamp
        ) -> FsResult<()>;
        async link_at["link", path](
            fd: Of<Descriptor>, flags: PathFlags, path: String, new_fd: Of<Descriptor>, new_path: String
        ) -> FsResult<()>;
        async open_at["open", path](
            fd: Of<Descriptor>, flags: PathFlags, path: String, how: OpenFlags, access: DescriptorFlags
        ) -> FsResult<Of<Descriptor>>;
        async readlink_at["read the link", path](fd: Of<Descriptor>, path: String) -> FsResult<String>;
        async remove_directory_at["remove", path](fd: Of<Descriptor>, path: String) -> FsResult<()>;
        async rename_at["rename", path](
            fd: Of<Descriptor>, path: String, new_fd: Of<Descriptor>, new_path: String
        ) -> FsResult<()>;
        async symlink_at["link to", path](fd: Of<Descriptor>, path: String, new_path: String) -> FsResult<()>;
        async unlink_file_at["remove", path](fd: Of<Descriptor>, path: String) -> FsResult<()>;
        async metadata_hash_at["look at", path](
            fd: Of<Descriptor>, flags: PathFlags, path: String
        ) -> FsResult<MetadataHashValue>;
    }

    async fn set_size(&mut self, fd: Of<Descriptor>, size: Filesize) -> FsResult<()> {
        let answer = self.files.set_size(fd, size).await;
        self.told(answer, "set the size of", OPENED)
    }

    async fn set_times(&mut self, fd: Of<Descriptor>, atim: NewTimestamp, mtim: NewTimestamp) -> FsResult<()> {
        let answer = self.files.set_times(fd, atim, mtim).await;
        self.told(answer, "set the times of", OPENED)
    }

    async fn write(&mut self, fd: Of<Descriptor>, bytes: Vec<u8>, offset: Filesize) -> FsResult<Filesize> {
        let answer = self.files.write(fd, bytes, offset).await;
        self.told(answer, "write to", OPENED)
    }

    fn read_via_stream(&mut self, fd: Of<Descriptor>, offset: Filesize) -> FsResult<Of<DynInputStream>> {
        self.files.read_via_stream(fd, offset)
    }

    fn write_via_stream(&mut self, fd: Of<Descriptor>, offset: Filesize) -> FsResult<Of<DynOutputStream>> {
        let answer = self.files.write_via_stream(fd, offset);
        self.told(answer, "write to", OPENED)
    }

    fn append_via_stream(&mut self, fd: Of<Descriptor>) -> FsResult<Of<DynOutputStream>> {
        let answer = self.files.append_via_stream(fd);
        self.told(answer, "append to", OPENED)
    }

    fn drop(&mut self, fd: Of<Descriptor>) -> wasmtime::Result<()> {
        HostDescriptor::drop(&mut self.files, fd)
    }
}

/// What a refusal calls a file whose name is not known any more.
const OPENED: &str = "an open file";

impl HostDirectoryEntryStream for Watched<'_> {
    async fn read_directory_entry(&mut self, stream: Of<DirectoryEntryStream>) -> FsResult<Option<DirectoryEntry>> {
        self.files.read_directory_entry(stream).await
    }

    fn drop(&mut self, stream: Of<DirectoryEntryStream>) -> wasmtime::Result<()> {
        HostDirectoryEntryStream::drop(&mut self.files, stream)
    }
}

impl Host for Watched<'_> {
    fn convert_error_code(&mut self, error: FsError) -> wasmtime::Result<ErrorCode> {
        self.files.convert_error_code(error)
    }

    fn filesystem_error_code(&mut self, error: Of<wasmtime::Error>) -> wasmtime::Result<Option<ErrorCode>> {
        self.files.filesystem_error_code(error)
    }
}
