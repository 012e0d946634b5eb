/*
 * A stand-in for the board's software: enough of a console, a lamp, a button and a reset to try the driver on a real QEMU
 * within a second. Runs from flash at address 0 with the MMU off; all variables are on the stack.
 */
typedef unsigned char u8;
typedef unsigned int u32;

#define UART ((volatile u32 *)0x09000000)
#define UART_FLAGS (UART[0x18 / 4])
#define GPIO ((volatile u8 *)0x09030000)
#define MAGIC (*(volatile u32 *)0x40300000)

struct console {
	int machine, safe, interrupts, length;
	char line[256];
};

static void put(char c)
{
	while (UART_FLAGS & 0x20)
		;
	UART[0] = (u8)c;
}

static void print(const char *text)
{
	while (*text)
		put(*text++);
}

static int same(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return *a == *b;
}

static void block(char kind, int code, const char *body)
{
	int length = 0, unit;

	while (body[length])
		length++;
	put(kind);
	put('0' + code);
	for (unit = 10000; unit; unit /= 10)
		put('0' + length / unit % 10);
	print("\r\n");
	print(body);
}

static void answer(struct console *c, int code, const char *body)
{
	if (c->machine)
		block(c->safe ? 'S' : 'R', code, body);
	else
		print(body);
}

static void prompt(struct console *c)
{
	if (!c->machine)
		print(c->safe ? "SAFEMODE> " : "> ");
}

static void reset(void)
{
	register unsigned long x0 __asm__("x0") = 0x84000009; /* PSCI SYSTEM_RESET */

	__asm__ volatile("hvc #0" : "+r"(x0) : : "memory");
	for (;;)
		;
}

static void run(struct console *c)
{
	if (same(c->line, "")) {
	} else if (same(c->line, "set system.cmd.format machine")) {
		c->machine = 1;
		answer(c, 0, "Set OK\r\n");
	} else if (same(c->line, "set system.cmd.format human")) {
		c->machine = 0;
		answer(c, 0, "Set OK\r\n");
	} else if (same(c->line, "version")) {
		answer(c, 0, "TEST-BARE_FIRMWARE-1.0.0, Board:virt\r\n");
	} else if (same(c->line, "get system.boot.good")) {
		answer(c, 0, "1\r\n");
	} else if (same(c->line, "fail")) {
		print("[    1.234567] a line of the kernel\r\n");
		if (c->machine)
			block('L', 0, "the reason\r\n");
		answer(c, 1, "Command failed\r\n");
	} else if (same(c->line, "safe")) {
		c->safe = 1;
		answer(c, 0, "Success\r\n");
	} else if (same(c->line, "panic")) {
		answer(c, 0, "Success\r\n");
		print("Kernel panic - not syncing: asked for\r\n");
	} else if (same(c->line, "lose interrupt")) {
		/* What Linux does when it opens the port with typed text waiting. */
		c->interrupts = 1;
		UART[0x38 / 4] = 0x50;
		answer(c, 0, "Type now\r\n");
		while (!(UART_FLAGS & 0x40))
			;
		UART[0x44 / 4] = 0x7ff;
	} else if (same(c->line, "silent")) {
		for (;;)
			;
	} else if (same(c->line, "reboot")) {
		answer(c, 0, "Rebooting\r\n");
		reset();
	} else {
		answer(c, 3, "Unknown command\r\n");
	}
	prompt(c);
}

static void typed(struct console *c, char byte)
{
	if (byte == 0x15 || byte == 0x0b) {
		c->length = 0;
	} else if (byte == '\r') {
		if (!c->machine)
			print("\r\n");
		c->line[c->length] = 0;
		c->length = 0;
		run(c);
	} else if (byte >= ' ' && c->length < 255) {
		c->line[c->length++] = byte;
		if (!c->machine)
			put(byte);
	}
}

void firmware(void)
{
	struct console c;
	int pressed, before = -1;

	c.machine = c.safe = c.interrupts = c.length = 0;
	UART[0x30 / 4] = 0x301; /* on, sends, receives */
	UART[0x2c / 4] = 0x70; /* with a buffer of 16 bytes */
	GPIO[0x400] = 2; /* line 1, the lamp, is an output */
	print("\r\n\r\nU-Boot 2025.01 (stand-in)\r\nwarm=");
	put(MAGIC == 0x5a454e54 ? '1' : '0');
	MAGIC = 0x5a454e54;
	print(" button=");
	put(GPIO[0x04] & 1 ? '1' : '0');
	print("\r\n");
	prompt(&c);
	for (;;) {
		pressed = GPIO[0x04] & 1;
		if (pressed != before)
			GPIO[0x08] = pressed ? 2 : 0; /* the lamp shows the button */
		before = pressed;
		if (!(UART_FLAGS & 0x10) && (!c.interrupts || UART[0x3c / 4] & 0x10))
			typed(&c, (char)UART[0]);
	}
}

__asm__(".section .start, \"ax\"\n"
	"mov x0, #0x40400000\n"
	"mov sp, x0\n"
	"b firmware\n");
