//! The switch of x86-64.
//!
//! Going over is an exchange: the stack that is left keeps what the other side needs to come back
//! on its own top, and the one word of the fiber names the stack that does not run.
//!
//! ```text
//!   a fiber that is new            one that is out, or in:        running
//!                                  the stack that waits
//!   high ┌───────────────┐         ~  its frames    ~             ~  its frames   ~
//!        │ argument      │         │                │             │               │ ◀ rsp
//!        │ entry         │         ├────────────────┤
//!        │ begin         │ ◀ other │ rbp            │
//!        └───────────────┘         │ rbx            │
//!                                  │ where to go on │ ◀ other
//!   low                            └────────────────┘
//! ```
//!
//! All registers that a call must keep are clobbered for the compiler, so that it saves those that it
//! uses; rbp and rbx, which it does not give away, are pushed. As calls do, this leaves the modes of
//! the floating-point units as they are.
//!
//! Control goes over by jumps, and is inlined where it leaves. A processor foretells where a `ret`
//! goes by the calls that came before it, on whatever stack; a `call` into the fiber and a `ret` out
//! of it would shift these against each other, so that both went wrong on every switch. So the
//! calls that led to the place where a fiber waits are those that led the last one there, and each
//! `ret` behind it finds its own.
//!
//! Nothing unwinds from one stack to the other: `begin` says that it was called by nobody.

#![expect(
    clippy::inline_always,
    reason = "a call between them would shift what returns are foretold by"
)]

use std::arch::{asm, global_asm};
use std::cell::Cell;

use corosensei::stack::Stack;

use super::Frames;

/// A stack on which a function runs, in turns with the one that enters it.
pub(crate) struct Fiber {
    /// INVARIANT: the top of the stack that does not run, of the fiber while it is out and of whoever
    /// entered it while it is in; below it lies what `exchange` pushed there, or `new`.
    other: Cell<*mut u8>,
}

impl Fiber {
    /// A fiber that will call `entry(argument)`, with its frames in `frames`.
    #[expect(clippy::needless_pass_by_value, reason = "they are this fiber's from now on")]
    pub(crate) fn new(
        frames: Frames,
        entry: extern "C" fn(*const ()) -> !,
        argument: *const (),
    ) -> Fiber {
        let first = [
            meinheld_coro_begin as *const () as usize,
            entry as *const () as usize,
            argument as usize,
        ];
        let top = (frames.base().get() - size_of_val(&first)) as *mut [usize; 3];
        // SAFETY: the last bytes of the frames, which are the fiber's and aligned for words (what a
        // `Stack` promises).
        unsafe { top.write(first) };
        Fiber { other: Cell::new(top.cast()) }
    }

    /// Runs the fiber until it leaves.
    ///
    /// # Safety
    /// It is out, and on this thread if it ever was in.
    #[inline(always)]
    pub(crate) unsafe fn enter(&self) {
        // SAFETY: the fiber is out (the caller's promise), so that the word names its top.
        unsafe { exchange(self.other.as_ptr()) };
    }

    /// Goes back to whoever entered the fiber, until it is entered again.
    ///
    /// # Safety
    /// It is what runs.
    #[inline(always)]
    pub(crate) unsafe fn leave(&self) {
        // SAFETY: the fiber runs (the caller's promise), so that the word names the top of the stack
        // that entered it, whose frames wait there.
        unsafe { exchange(self.other.as_ptr()) };
    }
}

/// Goes on where the stack stopped whose top `other` names, which names that of this one then.
#[inline(always)]
unsafe fn exchange(other: *mut *mut u8) {
    // SAFETY: the other stack's top holds a place in code and what that expects above it: by `new`
    // what `begin` pops, by this what stands behind the label. Either keeps the alignment of the
    // stack that it had. The registers that change are named, or restored.
    unsafe {
        asm!(
            "push rbp",
            "push rbx",
            "lea rax, [rip + 2f]",
            "push rax",
            "mov rax, rsp",
            "mov rsp, [rdi]",
            "mov [rdi], rax",
            "pop rax",
            "jmp rax",
            "2:",
            "pop rbx",
            "pop rbp",
            inout("rdi") other => _,
            lateout("r12") _, lateout("r13") _, lateout("r14") _, lateout("r15") _,
            clobber_abi("sysv64"),
        );
    }
}

unsafe extern "C" {
    /// Where a new fiber begins: below `entry` and its argument. It is called by nobody.
    fn meinheld_coro_begin();
}

// Stack walks end at a frame that does not know where it was called.
global_asm!(
    ".pushsection .text.meinheld_coro_begin, \"ax\", @progbits",
    ".balign 16",
    ".hidden meinheld_coro_begin",
    ".globl meinheld_coro_begin",
    ".type meinheld_coro_begin, @function",
    "meinheld_coro_begin:",
    ".cfi_startproc",
    ".cfi_undefined rip",
    "pop rax",
    "pop rdi",
    "xor ebp, ebp",
    "call rax",
    "ud2",
    ".cfi_endproc",
    ".size meinheld_coro_begin, . - meinheld_coro_begin",
    ".popsection",
);
