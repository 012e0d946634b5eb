"""What owners ask of their devices through the server: each asked once, answered once, never done late."""
