//! Compressed clusters: a bounded decompression, and the last few results.
//!
//! The compressed bytes are hostile. What they decompress to is cut at a cluster.

use std::io;

use miniz_oxide::inflate::decompress_slice_iter_to_slice;

use super::error::invalid;
use super::header::Compression;
use super::storage::index;
use super::zstd;

/// Bytes of decompressed clusters that are kept, if more than one cluster fits.
const KEPT_BYTES: u64 = 512 << 10;

/// Which cluster: the file of the chain, and where its compressed bytes begin there.
pub(super) type Source = (usize, u64);

/// Decompressed clusters, the last used at the end.
#[derive(Debug, Default)]
pub(super) struct Decompressed {
    clusters: Vec<(Source, Box<[u8]>)>,
}

impl Decompressed {
    /// Whether a cluster is here; if so, it is the last from now on.
    pub(super) fn find(&mut self, source: Source) -> bool {
        let at = self.clusters.iter().position(|(kept, _)| *kept == source);
        let used = at.and_then(|at| self.clusters.get_mut(at..));
        used.map(|used| used.rotate_left(1)).is_some()
    }

    /// The bytes of the cluster found or kept last.
    pub(super) fn last(&self) -> &[u8] {
        self.clusters
            .last()
            .map(|(_, bytes)| &**bytes)
            .unwrap_or_default()
    }

    /// Keeps a cluster.
    pub(super) fn keep(&mut self, source: Source, bytes: Box<[u8]>) {
        let room = index(KEPT_BYTES / (bytes.len() as u64).max(1)).max(1);
        let surplus = (self.clusters.len() + 1).saturating_sub(room);
        self.clusters.drain(..surplus.min(self.clusters.len()));
        self.clusters.push((source, bytes));
    }
}

/// Decompresses a cluster of `cluster` bytes.
pub(super) fn decompress(
    compression: Compression,
    input: &[u8],
    cluster: u64,
) -> io::Result<Box<[u8]>> {
    let mut output = vec![0; index(cluster)].into_boxed_slice();
    let whole = match compression {
        Compression::Zlib => inflate(input, &mut output),
        Compression::Zstd => zstd::decompress(input, &mut output),
    };
    if !whole {
        return Err(invalid("compressed cluster cannot be decompressed"));
    }
    Ok(output)
}

/// Fills `output`; what is in the input behind that is ignored, since lengths are counted in
/// sectors.
fn inflate(input: &[u8], output: &mut [u8]) -> bool {
    use miniz_oxide::inflate::TINFLStatus;
    let wanted = output.len();
    match decompress_slice_iter_to_slice(output, std::iter::once(input), false, true) {
        Ok(count) => count == wanted,
        // The output is full, and the end of the stream was not seen.
        Err(status) => status == TINFLStatus::HasMoreOutput,
    }
}
