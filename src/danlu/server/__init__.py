"""The HTTP face: one file of routes per noun, the WebSocket, and the web application's files."""
