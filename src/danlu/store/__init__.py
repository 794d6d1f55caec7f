"""The database: tables, migrations, and the only place that knows SQLAlchemy's objects."""
