//! Many elements of a map in one system call: BPF_MAP_LOOKUP_BATCH and BPF_MAP_UPDATE_BATCH (Linux 5.6, kernel/bpf/syscall.c;
//! of per-CPU arrays from Linux 5.13 on).
//!
//! Where the kernel has them not for a map, each element is one call. An update is no more atomic than its elements are, and
//! they are written in their order.

use std::{
    io,
    ops::{Deref, DerefMut},
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use anyhow::{Context, Result, bail, ensure};
use aya::{
    Pod,
    maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray},
    util::nr_cpus,
};
use nix::libc;

use super::sys::{Command, bpf};

/// What a map without batches answers (include/linux/errno.h); a kernel without them answers EINVAL.
const ENOTSUPP: i32 = 524;
/// Bytes of values in one call.
const CHUNK: usize = 1 << 17;

/// The part of `union bpf_attr` that batches use.
#[repr(C)]
#[derive(Default)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// A map `M` that may be read and written in batches.
pub struct Batched<M> {
    map: M,
    fd: OwnedFd,
}

impl<M: TryFrom<Map, Error = MapError>> Batched<M> {
    pub fn new(map: Map) -> Result<Self> {
        let (Map::Array(data)
        | Map::PerCpuArray(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)) = &map
        else {
            bail!("it is neither an array nor a hash map");
        };
        let fd = data.fd().as_fd().try_clone_to_owned()?;
        Ok(Self {
            map: map.try_into()?,
            fd,
        })
    }
}

impl<M> Deref for Batched<M> {
    type Target = M;

    fn deref(&self) -> &M {
        &self.map
    }
}

impl<M> DerefMut for Batched<M> {
    fn deref_mut(&mut self) -> &mut M {
        &mut self.map
    }
}

impl<V: Pod> Batched<Array<MapData, V>> {
    /// All elements.
    pub fn all(&self) -> Result<Vec<V>> {
        self.below(self.map.len())
    }

    /// The elements of the indexes below `end`, of those that there are.
    pub fn below(&self, end: u32) -> Result<Vec<V>> {
        let end = end.min(self.map.len());
        let mut all = Vec::with_capacity(end as usize);
        let batches = look_up(&self.fd, end, 1, |values: &[V]| {
            all.extend_from_slice(values);
        })?;
        if !batches {
            let each = (0..end).map(|index| self.map.get(&index, 0));
            all = each.collect::<Result<_, _>>()?;
        }
        Ok(all)
    }

    /// Writes each of `values` at its index in `keys`.
    pub fn set_all(&mut self, keys: &[u32], values: &[V]) -> Result<()> {
        if !update(&self.fd, keys, values)? {
            for (key, value) in keys.iter().zip(values) {
                self.map.set(*key, value, 0)?;
            }
        }
        Ok(())
    }
}

impl<K: Pod, V: Pod> Batched<HashMap<MapData, K, V>> {
    /// Writes each of `values` under its key in `keys`.
    pub fn insert_all(&mut self, keys: &[K], values: &[V]) -> Result<()> {
        if !update(&self.fd, keys, values)? {
            for (key, value) in keys.iter().zip(values) {
                self.map.insert(key, value, 0)?;
            }
        }
        Ok(())
    }
}

impl<K: Pod, V: Pod> Batched<HashMap<MapData, K, V>> {
    /// Does the kernel support batch operations on this map? Asks for one element.
    pub fn can_batch(&self) -> bool {
        // The place where a look-up stopped is a key, or the number of a bucket.
        let (mut place, mut keys, mut values) =
            ([0_u64; 8], Vec::with_capacity(1), Vec::with_capacity(1));
        let (key, value): (*mut K, *mut V) = (keys.as_mut_ptr(), values.as_mut_ptr());
        let mut batch = Batch {
            out_batch: place.as_mut_ptr() as u64,
            keys: key as u64,
            values: value as u64,
            count: 1,
            map_fd: self.fd.as_raw_fd() as u32,
            ..Batch::default()
        };
        // SAFETY: the kernel writes at most one key, one value and one place, for each of which there is room.
        match unsafe { bpf(Command::MapLookupBatch, &mut batch) } {
            Ok(_) => true,
            // Nothing there, or more in one bucket than there is room for.
            Err(error) => matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOSPC)),
        }
    }

    /// All entries. Programs may write meanwhile: of what they remove or store some may be missing or come twice.
    pub fn entries(&self) -> Result<Vec<(K, V)>> {
        let mut all = Vec::new();
        let mut at_once = (CHUNK / (size_of::<K>() + size_of::<V>())).max(1);
        let mut place: u32 = 0;
        let mut is_first = true;
        loop {
            let from = place;
            let (mut keys, mut values) = (
                Vec::<K>::with_capacity(at_once),
                Vec::<V>::with_capacity(at_once),
            );
            let mut batch = Batch {
                in_batch: if is_first { 0 } else { &raw const from as u64 },
                out_batch: &raw mut place as u64,
                keys: keys.as_mut_ptr() as u64,
                values: values.as_mut_ptr() as u64,
                count: u32::try_from(at_once)?,
                map_fd: self.fd.as_raw_fd() as u32,
                ..Batch::default()
            };
            // SAFETY: the kernel writes at most `count` keys and values, for which there is room, and the number of a bucket to `place`.
            let done = unsafe { bpf(Command::MapLookupBatch, &mut batch) };
            let is_last = match done {
                Ok(_) => false,
                Err(error) => match error.raw_os_error() {
                    Some(libc::ENOENT) => true,
                    // More in one bucket than there is room for.
                    Some(libc::ENOSPC) => {
                        at_once *= 2;
                        place = from;
                        continue;
                    }
                    _ if is_first && is_missing(&error) => {
                        return Ok(self.map.iter().collect::<Result<_, _>>()?);
                    }
                    _ => return Err(error).context("BPF_MAP_LOOKUP_BATCH"),
                },
            };
            let many = (batch.count as usize).min(at_once);
            // SAFETY: the kernel has filled in that many of each.
            unsafe {
                keys.set_len(many);
                values.set_len(many);
            }
            all.extend(keys.into_iter().zip(values));
            if is_last {
                return Ok(all);
            }
            is_first = false;
        }
    }
}

impl<V: Pod> Batched<PerCpuArray<MapData, V>> {
    /// The elements of the indexes below `end`, of those that there are, each reduced to one value by `sum` over its CPUs.
    pub fn sums<T>(&self, end: u32, sum: impl Fn(&[V]) -> T) -> Result<Vec<T>> {
        let end = end.min(self.map.len());
        let mut sums = Vec::with_capacity(end as usize);
        let cpus = cpus()?;
        let batches = size_of::<V>().is_multiple_of(8)
            && look_up(&self.fd, end, cpus, |values: &[V]| {
                sums.extend(values.chunks_exact(cpus).map(&sum));
            })?;
        if !batches {
            for index in 0..end {
                sums.push(sum(&self.map.get(&index, 0)?));
            }
        }
        Ok(sums)
    }

    /// The elements that are not `zero` on all CPUs: their indexes, and their values, one for each CPU.
    pub fn all_but(&self, zero: V) -> Result<Vec<(u32, Vec<V>)>>
    where
        V: PartialEq,
    {
        let is_zero = |values: &[V]| values.iter().all(|value| *value == zero);
        let all = self.sums(self.map.len(), |values| {
            (!is_zero(values)).then(|| values.to_vec())
        })?;
        let all = (0..).zip(all);
        Ok(all
            .filter_map(|(index, values)| Some((index, values?)))
            .collect())
    }

    /// Writes `values` at the indexes `keys`, for each as many as there are CPUs.
    pub fn set_all(&mut self, keys: &[u32], values: &[V]) -> Result<()> {
        let cpus = cpus()?;
        if !(size_of::<V>().is_multiple_of(8) && update(&self.fd, keys, values)?) {
            for (key, values) in keys.iter().zip(values.chunks(cpus)) {
                self.map.set(*key, values.to_vec().try_into()?, 0)?;
            }
        }
        Ok(())
    }

    /// Sets the elements at `keys` to `zero` on all CPUs.
    pub fn clear(&mut self, keys: &[u32], zero: V) -> Result<()> {
        self.set_all(keys, &vec![zero; keys.len() * cpus()?])
    }
}

fn cpus() -> Result<usize> {
    nr_cpus().map_err(|(what, error)| anyhow::Error::new(error).context(what))
}

/// Hands the elements of the indexes below `end` of an array to `take`, in order; each has `each` values, which lie side by side.
/// `false` where the kernel has no batches for this map, and then nothing was handed over.
fn look_up<V: Pod>(
    fd: &OwnedFd,
    end: u32,
    each: usize,
    mut take: impl FnMut(&[V]),
) -> Result<bool> {
    let at_once = (CHUNK / (size_of::<V>() * each)).clamp(1, end.max(1) as usize);
    let mut keys: Vec<u32> = vec![0; at_once];
    let mut values: Vec<V> = Vec::with_capacity(at_once * each);
    let mut next: u32 = 0;
    let mut last: u32 = 0;
    while next < end {
        let from = last;
        let mut batch = Batch {
            in_batch: if next == 0 { 0 } else { &raw const from as u64 },
            out_batch: &raw mut last as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: (at_once as u32).min(end - next),
            map_fd: fd.as_raw_fd() as u32,
            ..Batch::default()
        };
        // SAFETY: the kernel writes at most `count` keys and `count * each` values, for which both have room, and one key
        // to `last`; all of them outlive the call.
        let done = unsafe { bpf(Command::MapLookupBatch, &mut batch) };
        match done {
            // The end of the map, as the caller knows it already.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(error) if next == 0 && is_missing(&error) => return Ok(false),
            Err(error) => return Err(error).context("BPF_MAP_LOOKUP_BATCH"),
            Ok(_) => {}
        }
        ensure!(
            (1..=at_once as u32).contains(&batch.count),
            "BPF_MAP_LOOKUP_BATCH: {} elements, not the {end} that the map has",
            next + batch.count
        );
        // SAFETY: the kernel has filled in that many elements.
        unsafe { values.set_len(batch.count as usize * each) };
        take(&values);
        next += batch.count;
    }
    Ok(true)
}

/// Writes the values, of which each key has as many as there are for one. `false` where the kernel has no batches for this map,
/// and then nothing was written.
fn update<K: Pod, V: Pod>(fd: &OwnedFd, keys: &[K], values: &[V]) -> Result<bool> {
    // One element is no batch: it would only cost the probe on an old kernel.
    if keys.len() < 2 {
        return Ok(false);
    }
    let mut batch = Batch {
        keys: keys.as_ptr() as u64,
        values: values.as_ptr() as u64,
        count: u32::try_from(keys.len())?,
        map_fd: fd.as_raw_fd() as u32,
        ..Batch::default()
    };
    // SAFETY: the kernel reads `count` keys and their values, which both slices have, and writes only `batch`.
    match unsafe { bpf(Command::MapUpdateBatch, &mut batch) } {
        Ok(_) => Ok(true),
        Err(error) if is_missing(&error) => Ok(false),
        Err(error) => Err(error).with_context(|| {
            format!(
                "BPF_MAP_UPDATE_BATCH: element {} of {}",
                batch.count,
                keys.len()
            )
        }),
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(ENOTSUPP | libc::EINVAL))
}
