/** SQL: milliseconds since 1970 of a moment, or milliseconds of an interval. */
export const ms = (moment: string): string => `(extract(epoch from ${moment}) * 1000)::float8`
