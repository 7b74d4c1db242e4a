"""The bench: emfuse against others, the memory it takes, and what the machine can do. README.md says how to run it."""
