/*
 * What a virtual machine does with its disk when no operating system may take long to boot: the firmware loads this
 * from sector 0, and it copies sectors 16 to 79, one by one and inverted, to 81 and following. All of them are 512
 * bytes, most of them not at a multiple of 4 KiB. Ends QEMU through isa-debug-exit at port 0xf4: status 33, all is
 * well; 35, the firmware reported an error.
 *
 *	as --32 boot-sector.S -o b.o && ld -m elf_i386 -Ttext 0x7c00 --oformat binary b.o -o boot-sector
 */
	.code16
	.globl	_start
	.set	FROM, 16
	.set	TO, 81
	.set	COUNT, 64
	.set	BUFFER, 0x8000

_start:	xorw	%ax, %ax
	movw	%ax, %ds
	movw	%ax, %es
	movw	%ax, %ss
	movw	$0x7c00, %sp
	movw	$COUNT, %bp
next:	movb	$0x42, %ah		/* read; the firmware left the drive in %dl */
	call	disk
	movw	$BUFFER, %di
	movw	$256, %cx
invert:	notw	(%di)
	addw	$2, %di
	loop	invert
	addl	$(TO - FROM), lba
	movw	$0x4300, %ax		/* write */
	call	disk
	subl	$(TO - FROM - 1), lba
	decw	%bp
	jnz	next
	movb	$0x10, %al
end:	movw	$0xf4, %dx
	outb	%al, %dx
	hlt

disk:	movw	$1, blocks		/* the firmware says here how many it did */
	movw	$packet, %si
	int	$0x13
	movb	$0x11, %al
	jc	end
	ret

	.balign	4
packet:	.byte	16, 0
blocks:	.word	1
	.word	BUFFER, 0
lba:	.long	FROM, 0

	.org	510
	.word	0xaa55
