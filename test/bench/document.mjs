export const writeDocument = () => []
