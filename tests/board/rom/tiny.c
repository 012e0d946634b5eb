/*
 * A kernel for trying the boot script: says which arguments it was started with, and then either switches the machine off
 * (`test=off`) or hangs for ever (`test=hang`; `test=stop`: after an attempt to stop the watchdog, as Linux's driver makes).
 * It looks like Linux to the boot loader: see the header. The MMU is off.
 */
typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long word; /* of the processor */

#ifdef __aarch64__
#define ECAM 0x4010000000ul
/* Linux, Documentation/arch/arm64/booting.rst: the image's header. */
__asm__(".section .head, \"ax\"\n"
	".globl _head\n"
	"_head:\n"
	"	b	_enter\n"
	"	.word	0\n"
	"	.quad	0\n"		/* load at the beginning of a 2 MiB block */
	"	.quad	0x10000\n"	/* size */
	"	.quad	0xa\n"		/* little endian, 4 KiB pages, anywhere in RAM */
	"	.quad	0, 0, 0\n"
	"	.ascii	\"ARM\\x64\"\n"
	"	.word	0\n"
	"_enter:\n"
	"	adr	x1, _head\n"
	"	add	sp, x1, #0x10000\n"
	"	b	begin\n"
	".text\n");
#else
#define ECAM 0x3f000000ul
/* Linux, Documentation/arch/arm/booting.rst: no header; r2 has the place of the tree. */
__asm__(".arch_extension virt\n"
	".section .head, \"ax\"\n"
	".globl _head\n"
	"_head:\n"
	"	adr	r1, _head\n"
	"	add	sp, r1, #0x10000\n"
	"	mov	r0, r2\n"
	"	b	begin\n"
	".text\n");
#endif

static void print(const char *text)
{
	volatile u32 *uart = (volatile u32 *)0x09000000;

	while (*text) {
		while (uart[0x18 / 4] & 0x20)
			;
		uart[0] = (u8)*text++;
	}
}

static int same(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return *a == *b;
}

static u32 big(const u8 *at)
{
	return (u32)at[0] << 24 | (u32)at[1] << 16 | (u32)at[2] << 8 | at[3];
}

/* Device tree specification 0.4, chapter 5: find the property `bootargs`, which stands in /chosen alone. */
static const char *arguments(const u8 *tree)
{
	const u8 *at = tree + big(tree + 8), *end = at + big(tree + 36);
	const char *names = (const char *)tree + big(tree + 12);

	while (at < end) {
		u32 token = big(at);

		at += 4;
		if (token == 1) {
			while (*at++)
				;
			at = (const u8 *)(((word)at + 3) & ~3ul);
		} else if (token == 3) {
			if (same(names + big(at + 4), "bootargs"))
				return (const char *)at + 8;
			at += 8 + ((big(at) + 3) & ~3u);
		}
	}
	return "";
}

void begin(const u8 *tree)
{
	const char *line = arguments(tree);

	print("tiny: started with <");
	print(line);
	print(">\n");
	if (line[5] == 's') /* PCI device 31: the lock register, see scripts/board_driver/machine.py */
		*(volatile u8 *)(ECAM + (0x1f << 15) + 0x68) = 0;
	if (line[5] == 'o') {
#ifdef __aarch64__
		register word first __asm__("x0") = 0x84000008; /* PSCI SYSTEM_OFF */
#else
		register word first __asm__("r0") = 0x84000008;
#endif

		__asm__ volatile("hvc #0" : "+r"(first) : : "memory");
	}
	for (;;)
		;
}
