# Ring 0, third part: application processors, from the start-up IPI to ring 3.
#
# `ap_start`..`ap_end` is copied to a page below 1 MiB, whose number is the IPI's vector; it must
# not depend on where it lies. The rest runs in place. Each processor draws a number and finds
# under it a block that ring 3 has prepared: GDT register, GDT, TSS, return frame, stacks
# (`cpus.rs` has the layout).

    .section .boot, "awx", @progbits
    .code16
    .globl ap_start
ap_start:
    cli
    .byte 0x2e, 0x66, 0x0f, 0x01, 0x16 # lgdt cs:[ap_gdtr - ap_start], with a 32-bit base
    .word ap_gdtr - ap_start
    mov eax, 0x11                   # ET, PE; clears the cache-disable bits that INIT sets
    mov cr0, eax
    .byte 0x66, 0xea                # far jump with 32-bit offset to CODE32_R0:ap_protected
    .long ap_protected
    .word CODE32_R0
ap_gdtr:
    .word gdt_end - gdt - 1
    .long gdt
    .globl ap_end
ap_end:

    .code32
ap_protected:
    mov eax, DATA_R0
    mov ds, eax
    enable_long_mode
    .byte 0xea
    .long ap_long
    .word CODE64_R0

    .code64
ap_long:
    mov eax, 1
    lock xadd dword ptr [ap_next], eax
    cmp eax, dword ptr [ap_blocks_ready]
    jae r0_park                     # not in the ACPI tables, so no block waits for it
    shl eax, 12
    add eax, 0x200000               # cpus::BLOCKS
    mov edi, eax                    # the block, argument of ring3_ap
    lgdt [rdi]
    lidt [idtr]
    mov eax, TSS_SEL
    ltr ax
    lea esp, [rdi + 0xd0]
    iretq

    .section .bss.state, "aw", @nobits
    .globl ap_next                  # the next number to draw
ap_next: .skip 4
    .globl ap_blocks_ready
ap_blocks_ready: .skip 4
