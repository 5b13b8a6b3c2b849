# Ring 0, second part: what is entered from ring 3 afterwards.
#
# Interrupt descriptor table, interrupt and exception stubs, and the services that ring 3 asks
# for. No SSE, no `int`, no BMI here: some KVMs emulate ring 0 and fail on them.

    .section .boot, "awx", @progbits
    .code64
    .ifdef DRIVERS                  # ring0.rs sets it for the image that has them
    .set VECTORS, 37
    .else
    .set VECTORS, 36
    .endif
    .set STUB_SIZE, 8

    # Addresses are split over the descriptor, which no relocation expresses; the image lies at
    # 0x100000 (the linker script checks) and this section comes first, so offsets will do.
    .balign 8
idt:
    .set n, 0
    .rept VECTORS
    .word stubs - image_start + STUB_SIZE * n, 0x08
    .byte 0, 0x8e                   # present, interrupt gate, ring 0
    .word 0x10
    .quad 0
    .set n, n + 1
    .endr
    .globl idtr
idtr:
    .word 16 * VECTORS - 1
    .quad idt

    .balign STUB_SIZE
stubs:
    .set n, 0
    .rept VECTORS
    .balign STUB_SIZE
    .if n == 2
    .ifdef DRIVERS
    jmp nmi_interrupt
    .else
    iretq                           # NMI: nothing to do
    .endif
    .elseif n == 6
    jmp invalid_opcode
    .elseif n == 0x20
    jmp timer_interrupt
    .elseif n == 0x21
    jmp system_control_interrupt
    .elseif n == 0x22
    jmp serial_interrupt
    .elseif n == 0x23
    iretq                           # spurious: no EOI (SDM vol 3, 11.9)
    .elseif n == 0x24
    jmp device_interrupt
    .else
    push n
    jmp exception
    .endif
    .set n, n + 1
    .endr
    .balign STUB_SIZE

timer_interrupt:
    inc dword ptr [timer_interrupts]
    jmp end_of_interrupt
    .ifdef DRIVERS
nmi_interrupt:                      # no EOI: it is no interrupt of the local APIC's
    inc dword ptr [nmi_interrupts]
    iretq
device_interrupt:
    inc dword ptr [device_interrupts]
    jmp end_of_interrupt
    .endif
serial_interrupt:
    inc dword ptr [serial_interrupts]
end_of_interrupt:
    push rax
    mov eax, 0xfee000b0             # EOI register; a 32-bit load, since displacements sign-extend
    mov dword ptr [rax], 0
    pop rax
    iretq

    # The line is level-triggered: the status bits must be cleared before the EOI, or it is
    # taken again at once. They are kept for ring 3.
system_control_interrupt:
    push rax
    push rdx
    mov edx, 0x600                  # PM1a status; writing the ones back clears them
    in ax, dx
    out dx, ax
    or word ptr [power_events], ax
    inc dword ptr [sci_interrupts]
    pop rdx
    pop rax
    jmp end_of_interrupt

    # `ud2` at one known address is the system call: `int` and `syscall` do not work everywhere.
    # Anywhere else it is what the compiler makes of an abort.
invalid_opcode:
    cmp qword ptr [rsp], offset ring0_call
    jne 1f
    add qword ptr [rsp], 2
    call rdi
    iretq
1:  push 6

    # Vectors whose exception has an error code: 8, 10-14, 17, 21, 29, 30.
    .set WITH_ERROR_CODE, 0x60227d00
exception:
    pop rax
    mov qword ptr [fault_record], rax
    mov ecx, WITH_ERROR_CODE
    bt ecx, eax
    jc 1f
    push 0
1:  pop qword ptr [fault_record + 8]
    pop qword ptr [fault_record + 16]
    mov rax, cr2
    mov qword ptr [fault_record + 24], rax
    mov esp, offset fault_frame
    iretq

    # ring0_call(service, a, b): runs `service` in ring 0 with rsi = a, rdx = b. Called from
    # ring 3 by the C convention, so services may use the caller-saved registers.
    .globl ring0_call
ring0_call:
    ud2
    ret

    # a = text, b = length. From ring 0 an exit can cost a fifth of what it costs from ring 3.
    .globl r0_write
r0_write:
    mov ecx, edx
    mov edx, 0x3f8
    rep outsb
    ret

    # a = a counter, b = its value as last seen. Sleeps unless it has moved since; the shadow of
    # `sti` lets no interrupt in between the comparison and the `hlt`.
    .globl r0_wait
r0_wait:
    cmp dword ptr [rsi], edx
    jne 1f
    sti
    hlt
    cli
1:  ret

    .globl r0_park
r0_park:
    cli
1:  hlt
    jmp 1b

    .globl r0_spin
r0_spin:
    cli
1:  jmp 1b

    # Clears IF in the flags that ring 3 returns to: above the return address lie rip and cs.
    .globl r0_mask_interrupts
r0_mask_interrupts:
    and dword ptr [rsp + 24], 0xfffffdff
    ret

    .globl r0_triple_fault
r0_triple_fault:
    lidt [no_idt]
    ud2

    # a = where to go on, in ring 0.
    .globl r0_jump
r0_jump:
    jmp rsi

    # a = first port, b = one past the last: each read and written with zero in three sizes.
    .globl r0_sweep_ports
r0_sweep_ports:
    mov ecx, edx
    mov edx, esi
1:  cmp edx, ecx
    jae 2f
    in al, dx
    in ax, dx
    in eax, dx
    xor eax, eax
    out dx, al
    out dx, ax
    out dx, eax
    inc edx
    jmp 1b
2:  ret

    .section .bss.state, "aw", @nobits
    .balign 16
    .globl fault_record             # vector, error code, rip, cr2
fault_record: .skip 32
    .globl timer_interrupts
timer_interrupts: .skip 4
    .globl serial_interrupts
serial_interrupts: .skip 4
    .globl sci_interrupts
sci_interrupts: .skip 4
    .ifdef DRIVERS
    .globl device_interrupts        # messages of PCI functions, whichever vector of theirs
device_interrupts: .skip 4
    .globl nmi_interrupts           # interrupts that cannot be masked
nmi_interrupts: .skip 4
    .endif
    .globl power_events             # PM1a status bits seen by the interrupt
power_events: .skip 4
