//! The system calls of stack memory: one anonymous mapping, its guards, its give-back.
//!
//! Every `libc` call of this crate is here, and in fault.rs. Not here: how a mapping is cut into stacks.

mod fault;

use std::io;
use std::ptr::{self, NonNull};

pub(crate) use fault::FaultHandler;

/// `MADV_GUARD_INSTALL` (Linux 6.13): a guard that lives in the page tables and splits no mapping.
const MADV_GUARD_INSTALL: libc::c_int = 102;

/// The size of a page, in bytes; 4,096 on x86-64.
pub(crate) fn page_bytes() -> usize {
    // SAFETY: sysconf reads a constant and has no preconditions.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096)
}

/// A private, anonymous, lazily backed mapping; unmapped when dropped.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    bytes: usize,
}

impl Mapping {
    /// Reserves `bytes` of address space (a multiple of the page size) without committing memory.
    ///
    /// Huge pages are switched off, since one touched byte of a stack would otherwise cost up to
    /// 2 MiB. A kernel built without huge pages answers EINVAL to that, which is as good.
    pub(crate) fn reserve(bytes: usize) -> io::Result<Mapping> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_STACK;
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice aliases nothing.
        let base = unsafe {
            libc::mmap(ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the range is the mapping just made; the advice changes no contents.
        unsafe { libc::madvise(base, bytes, libc::MADV_NOHUGEPAGE) };
        let base = NonNull::new(base.cast()).expect("mmap never maps page zero unasked");
        Ok(Mapping { base, bytes })
    }

    /// The lowest address.
    pub(crate) fn base(&self) -> usize {
        self.base.as_ptr() as usize
    }

    /// Makes the pages of `[offset, offset + bytes)` fault on access, at no cost in mappings.
    ///
    /// # Errors
    /// EINVAL on kernels before 6.13 and in memory that `mlockall(2)` has locked.
    pub(crate) fn guard_in_place(&self, offset: usize, bytes: usize) -> io::Result<()> {
        let start = self.checked(offset, bytes);
        // SAFETY: the range lies inside this mapping (`checked`), and the caller has not handed it
        // out as stack yet, so that nothing lives in it.
        check(unsafe { libc::madvise(start, bytes, MADV_GUARD_INSTALL) })
    }

    /// The same by `mprotect(2)`, which splits the mapping in two at each call.
    ///
    /// # Errors
    /// ENOMEM when the process has reached `vm.max_map_count` mappings.
    pub(crate) fn guard_by_protection(&self, offset: usize, bytes: usize) -> io::Result<()> {
        let start = self.checked(offset, bytes);
        // SAFETY: as for `guard_in_place`.
        check(unsafe { libc::mprotect(start, bytes, libc::PROT_NONE) })
    }

    /// Gives the pages of `[offset, offset + bytes)` back to the system; they read as zero after.
    ///
    /// # Safety
    /// Nothing that is still needed may live in the range.
    pub(crate) unsafe fn discard(&self, offset: usize, bytes: usize) {
        let start = self.checked(offset, bytes);
        // SAFETY: the range lies inside this mapping (`checked`) and holds nothing that is still
        // needed (the caller). A failure only means that the memory stays, so it is not reported.
        unsafe { libc::madvise(start, bytes, libc::MADV_DONTNEED) };
    }

    /// The address of `offset`, having asserted that the range lies inside the mapping.
    fn checked(&self, offset: usize, bytes: usize) -> *mut libc::c_void {
        assert!(offset <= self.bytes && bytes <= self.bytes - offset, "range outside the mapping");
        self.base.as_ptr().wrapping_add(offset).cast()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is owned by this value, and every stack cut from it holds a reference
        // count on it, so that none is in use any more.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserved_mapping_is_zeroed_and_can_be_discarded() {
        let page = page_bytes();
        let mapping = Mapping::reserve(4 * page).unwrap();
        let first = mapping.base() as *mut u8;
        // SAFETY: the address is the first byte of a live, writable mapping of this test's own.
        unsafe {
            first.write(7);
            mapping.discard(0, page);
            assert_eq!(first.read(), 0);
        }
    }

    #[test]
    #[should_panic(expected = "outside the mapping")]
    fn a_range_outside_the_mapping_is_a_fault_of_the_caller() {
        let page = page_bytes();
        let _ = Mapping::reserve(page).unwrap().guard_by_protection(page, page);
    }
}
