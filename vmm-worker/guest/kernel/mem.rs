//! The four memory functions the compiler calls by name, since there is no C library.
//!
//! String instructions: short, and as quick as anything for what this guest moves.

use core::arch::global_asm;

global_asm!(
    r#"
    .globl memcpy, memmove, memset, memcmp, bcmp
    .section .text.memcpy, "ax", @progbits # one section each: the linker drops what is not used
memcpy:
    mov rax, rdi
    mov rcx, rdx
    rep movsb
    ret
    .section .text.memmove, "ax", @progbits
memmove:
    mov rax, rdi
    mov rcx, rdx
    mov r8, rdi
    sub r8, rsi
    cmp r8, rdx
    jb 1f                           # the destination begins inside the source: copy backwards
    rep movsb
    ret
1:  lea rdi, [rdi + rcx - 1]
    lea rsi, [rsi + rcx - 1]
    std
    rep movsb
    cld
    ret
    .section .text.memset, "ax", @progbits
memset:
    mov r8, rdi
    mov eax, esi
    mov rcx, rdx
    rep stosb
    mov rax, r8
    ret
    .section .text.memcmp, "ax", @progbits
memcmp:
bcmp:
    xor eax, eax
    mov rcx, rdx
    cmp rcx, rcx                    # equal, for a length of zero
    repe cmpsb
    je 2f
    movzx eax, byte ptr [rdi - 1]
    movzx ecx, byte ptr [rsi - 1]
    sub ecx, eax
    mov eax, ecx
2:  ret
    "#,
    options(raw)
);
