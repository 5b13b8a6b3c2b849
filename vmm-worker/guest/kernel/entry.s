# Ring 0, first part: from the PVH entry to ring 3.
#
# Runs on the boot processor, once. PVH hands over in flat 32-bit protected mode, paging off,
# interrupts off, ebx = physical address of hvm_start_info. Some KVMs emulate ring 0 at about a
# microsecond an instruction, so this path is counted in instructions: the first byte goes out
# after three, the benchmark ends after a dozen, and Rust starts in ring 3 after about thirty-five.

    .set COM1_DATA,  0x3f8
    .set PM1_CONTROL, 0x604
    .set S5_SLEEP,   0x3400         # SLP_EN | SLP_TYP 5 << 10 (ACPI 6.5, 4.8.3.2.1)

    # Selectors of the table below; the low two bits are the requested privilege level.
    .set CODE64_R0, 0x08
    .set DATA_R0,   0x10
    .set CODE32_R0, 0x18
    .set DATA_R3,   0x20 + 3
    .set CODE64_R3, 0x28 + 3
    .set TSS_SEL,   0x30

    # The note by which a PVH loader finds the 32-bit entry. Eight bytes of address, because
    # QEMU reads as many as the ELF class has.
    .section .note.pvh, "a", @note
    .balign 4
    .long 4, 8, 18                  # sizes of name and descriptor; XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad start

    .section .boot, "awx", @progbits
    .globl image_start
image_start:

    .code32
    .globl start
start:
    # Every mode's output begins with this byte, so it needs no decision.
    mov edx, COM1_DATA
    mov al, 0x52                    # 'R'
    out dx, al

    # Two modes never leave this code, if the command line begins with them. A null pointer
    # for "no command line" reads the zeroes at address 0.
    mov esi, [ebx + 24]             # hvm_start_info.cmdline_paddr
    cmp dword ptr [esi], 0x65646f6d # "mode"
    jne to_ring3
    cmp dword ptr [esi + 4], 0x6e65623d # "=ben"
    je bench
    cmp dword ptr [esi + 4], 0x6c6f683d # "=hol"
    je hold

    # Long mode, entered the shortest way: three page-table stores map the first 2 MiB, where
    # everything the loader placed lives; ring 3 maps the rest when it needs it. Accessed and
    # dirty are set beforehand, which spares the walker a write.
    .macro enable_long_mode
    mov eax, offset pml4
    mov cr3, eax
    mov eax, 0x620                  # PAE; OSFXSR and OSXMMEXCPT, since compiled code uses SSE
    mov cr4, eax
    mov ecx, 0xc0000080             # EFER
    mov eax, 0x100                  # LME
    xor edx, edx
    wrmsr
    mov eax, 0x80000033             # PG, NE, ET, MP, PE
    mov cr0, eax
    .endm

to_ring3:
    rdtsc
    mov dword ptr [entry_tsc], eax
    mov dword ptr [entry_tsc + 4], edx
    mov dword ptr [pml4], offset pdpt + 0x27
    mov dword ptr [pdpt], offset page_directories + 0x27
    mov dword ptr [page_directories], 0xe7
    enable_long_mode
    lgdt [gdtr]
    .byte 0xea                      # far jump to CODE64_R0:long_mode
    .long long_mode
    .word CODE64_R0

    .code64
long_mode:
    lidt [idtr]
    mov eax, TSS_SEL
    ltr ax
    mov byte ptr [io_bitmap_tail], 0xff # the processor reads one byte past the bitmap
    mov edi, ebx                    # hvm_start_info, first argument of ring3_main
    mov esp, offset user_frame
    iretq

    .code32
bench:
    cmp word ptr [esi + 8], 0x6863  # "ch"
    jne to_ring3
    mov cl, [esi + 10]
    cmp cl, 0x2d                    # '-': perhaps "bench-anywhere"
    je bench_anywhere
    cmp cl, 0x20
    ja to_ring3
    mov al, 10
    out dx, al
    mov edx, PM1_CONTROL
    mov eax, S5_SLEEP
    out dx, ax
1:  hlt
    jmp 1b

    # The same figure on other machine monitors, which have no PM1 block at our port: each
    # write ends one of them and means nothing to the others.
bench_anywhere:
    cmp dword ptr [esi + 11], 0x77796e61 # "anyw"
    jne to_ring3
    mov al, 10
    out dx, al
    mov edx, 0x600                  # Cloud Hypervisor's sleep register: enable | S5
    mov al, 0x34
    out dx, al
    mov edx, 0x64                   # i8042 reset: Firecracker, QEMU
    mov al, 0xfe
    out dx, al
    lidt [no_idt]
    ud2                             # whatever is left takes a triple fault

hold:
    cmp byte ptr [esi + 8], 0x64    # 'd'
    jne to_ring3
    cmp byte ptr [esi + 9], 0x20
    ja to_ring3
    mov al, 10
    out dx, al
1:  sti                             # nothing is unmasked: this sleeps until it is destroyed
    hlt
    jmp 1b

    .balign 8
    .globl gdt
gdt:
    .quad 0
    .quad 0x00af9b000000ffff        # CODE64_R0
    .quad 0x00cf93000000ffff        # DATA_R0
    .quad 0x00cf9b000000ffff        # CODE32_R0, for application processors on their way up
    .quad 0x00cff3000000ffff        # DATA_R3
    .quad 0x00affb000000ffff        # CODE64_R3
    .word 0x68 + 0x2000             # TSS_SEL: the segment and its I/O bitmap with the tail byte
    .word tss_low                   # from the linker script, as the next byte
    .byte tss_middle, 0x89, 0, 0
    .quad 0
gdt_end:

gdtr:
    .word gdt_end - gdt - 1
    .long gdt
    .long 0
no_idt:
    .word 0
    .quad 0

    # What iretq pops to start Rust: entry, selectors, interrupts on, stack as after a call.
user_frame:
    .quad ring3_main, CODE64_R3, 0x3202, user_stack_top - 8, DATA_R3
    # The same after a fault, with interrupts off. There is no way back, so the stack restarts.
fault_frame:
    .quad ring3_fault, CODE64_R3, 0x3002, user_stack_top - 8, DATA_R3

    # Last in the file image, so that the bitmap can follow it in memory that is zero anyway.
    # All ports are open to ring 3 by this bitmap, as some KVMs drop IOPL, and by IOPL, as some
    # emulators do not look at the bitmap of a task that was restored (its descriptor says busy).
    .section .tss, "aw", @progbits
    .balign 16
    .globl tss
tss:
    .long 0
    .quad ring0_stack_top
    .fill 88 - 2, 1, 0
    .word 0, 0
    .word 0x68
    .if (. - tss) != 0x68
    .error "a 64-bit TSS has 0x68 bytes"
    .endif

    .section .bss.io_bitmap, "aw", @nobits
    .skip 0x2000
io_bitmap_tail:
    .skip 1

    .section .bss.state, "aw", @nobits
    .balign 16
    .globl entry_tsc
entry_tsc: .skip 8
    .skip 2040
ring0_stack_top:
    .skip 32768
user_stack_top:

    .section .bss.tables, "aw", @nobits
    .balign 4096
pml4: .skip 4096
    .globl pdpt
pdpt: .skip 4096
    .globl page_directories         # one for each of the first four GiB
page_directories: .skip 4 * 4096
