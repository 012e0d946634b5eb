"""The Device Management Server: one door for devices (mutual TLS), one for people and their tools."""
